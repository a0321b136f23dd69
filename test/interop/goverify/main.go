// goverify reads PEM certificates from standard input, each to verify as a server's and as a client's against the roots in the file
// that is its argument, at the time that is its second (RFC 3339). It prints one line for each that fails and the count of those that pass.
package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"time"
)

func main() {
	rootsPem, err := os.ReadFile(os.Args[1])
	at, badTime := time.Parse(time.RFC3339, os.Args[2])
	rest, badInput := io.ReadAll(os.Stdin)
	roots := x509.NewCertPool()
	if err != nil || badTime != nil || badInput != nil || !roots.AppendCertsFromPEM(rootsPem) {
		fmt.Fprintln(os.Stderr, "usage: goverify ROOTS.pem TIME < LEAVES.pem", err, badTime, badInput)
		os.Exit(64)
	}
	passed := 0
	for block, left := pem.Decode(rest); block != nil; block, left = pem.Decode(left) {
		leaf, err := x509.ParseCertificate(block.Bytes)
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			if err == nil {
				_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage}})
			}
		}
		if err == nil && (len(leaf.URIs) != 1 || len(leaf.UnhandledCriticalExtensions) != 0) {
			err = fmt.Errorf("one URI expected, not %d; unhandled %v", len(leaf.URIs), leaf.UnhandledCriticalExtensions)
		}
		if err != nil {
			fmt.Println("refused", err)
		} else {
			passed++
		}
	}
	fmt.Println("passed", passed)
}
