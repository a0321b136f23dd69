module caload

go 1.21
