# Completes the command line that is given as words, the last of them half typed, with the script in $SCRIPT. One offer a line.
eval "$SCRIPT"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_keyturn
for word in "${COMPREPLY[@]}"; do echo "$word"; done
