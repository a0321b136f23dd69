// goverify reads PEM certificates from standard input, each to verify as a server's and as a client's against the roots in the file
// that is its argument, at the time that is its second (RFC 3339). With a third argument, a file of PEM lists (CRLs), each must have a list of its
// issuer, one of the roots, that is good at that time and does not name it. It prints one line for each that fails and the count of those that pass.
// `goverify dial HOST:PORT ROOTS.pem` is a TLS client of a server instead.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"time"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == "dial" {
		dial(os.Args[2], os.Args[3])
		return
	}
	rootsPem, err := os.ReadFile(os.Args[1])
	at, badTime := time.Parse(time.RFC3339, os.Args[2])
	rest, badInput := io.ReadAll(os.Stdin)
	roots := x509.NewCertPool()
	if err != nil || badTime != nil || badInput != nil || !roots.AppendCertsFromPEM(rootsPem) {
		fmt.Fprintln(os.Stderr, "usage: goverify ROOTS.pem TIME < LEAVES.pem", err, badTime, badInput)
		os.Exit(64)
	}
	issuers, lists := readLists(rootsPem)
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
		if err == nil && len(os.Args) > 3 {
			err = notRevoked(leaf, issuers, lists, at)
		}
		if err != nil {
			fmt.Println("refused", err)
		} else {
			passed++
		}
	}
	fmt.Println("passed", passed)
}

// dial makes a TLS connection to a server by its address and name, as a client that trusts the roots of one file.
func dial(address string, rootsFile string) {
	rootsPem, err := os.ReadFile(rootsFile)
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(rootsPem) {
		fmt.Fprintln(os.Stderr, "usage: goverify dial HOST:PORT ROOTS.pem", err)
		os.Exit(64)
	}
	conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots, NextProtos: []string{"h2"}})
	if err != nil {
		fmt.Println("refused", err)
		return
	}
	conn.Close()
	fmt.Println("passed 1")
}

// readLists reads the roots one by one and the lists of the third argument, where there is one.
func readLists(rootsPem []byte) (issuers []*x509.Certificate, lists []*x509.RevocationList) {
	if len(os.Args) < 4 {
		return nil, nil
	}
	listsPem, err := os.ReadFile(os.Args[3])
	for block, left := pem.Decode(append(listsPem, rootsPem...)); block != nil && err == nil; block, left = pem.Decode(left) {
		if block.Type == "X509 CRL" {
			var list *x509.RevocationList
			list, err = x509.ParseRevocationList(block.Bytes)
			lists = append(lists, list)
		} else {
			var issuer *x509.Certificate
			issuer, err = x509.ParseCertificate(block.Bytes)
			issuers = append(issuers, issuer)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(65)
	}
	return issuers, lists
}

func notRevoked(leaf *x509.Certificate, issuers []*x509.Certificate, lists []*x509.RevocationList, at time.Time) error {
	for _, issuer := range issuers {
		if leaf.CheckSignatureFrom(issuer) != nil {
			continue
		}
		for _, list := range lists {
			if !bytes.Equal(list.AuthorityKeyId, issuer.SubjectKeyId) || list.CheckSignatureFrom(issuer) != nil {
				continue
			}
			if at.Before(list.ThisUpdate) || !at.Before(list.NextUpdate) {
				return fmt.Errorf("list %v is not good now", list.Number)
			}
			for _, entry := range list.RevokedCertificateEntries {
				if entry.SerialNumber.Cmp(leaf.SerialNumber) == 0 {
					return fmt.Errorf("revoked for reason %d", entry.ReasonCode)
				}
			}
			return nil
		}
	}
	return fmt.Errorf("no list of its issuer")
}
