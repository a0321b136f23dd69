package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// strangers ask without a proof that is worth anything, for as long as the callers do.
type strangers struct {
	Connections int
	// Calls at a time in each connection.
	Calls int
	// Anew: every call over a connection of its own.
	Anew bool
	// Chain: show a leaf and seven CAs of P-521: of the authority's own `name`, without key identifiers, or of `others`.
	Chain string
	// RequestPem is what they ask with; default a key of P-256.
	RequestPem string
}

// flood begins, and returns what ends it and says how many calls were answered.
func flood(asked *order) func() int {
	who := asked.Strangers
	if who == nil {
		return func() int { return 0 }
	}
	shown := &tls.Certificate{}
	if who.Chain != "" {
		shown = dearChain(asked.RootPem, who.Chain == "name")
	}
	from := &line{body: frame(strangersRequest(who.RequestPem), 3600)}
	context, end := context.WithCancel(context.Background())
	var answered atomic.Int64
	var all sync.WaitGroup
	for range make([]struct{}, who.Connections) {
		over := client(asked, shown)
		if who.Anew {
			over.Transport.(*http.Transport).DisableKeepAlives = true
		}
		for range make([]struct{}, who.Calls) {
			all.Add(1)
			go func() {
				defer all.Done()
				for context.Err() == nil {
					if ask(context, asked, over, from.body) {
						answered.Add(1)
					}
				}
			}()
		}
	}
	return func() int {
		end()
		all.Wait()
		return int(answered.Load())
	}
}

func ask(within context.Context, asked *order, over *http.Client, body []byte) bool {
	reply, err := over.Do(newCall(asked, body, "").WithContext(within))
	if err != nil {
		// Do not spin where the authority hangs up at once.
		time.Sleep(time.Millisecond)
		return false
	}
	defer reply.Body.Close()
	_, err = io.Copy(io.Discard, reply.Body)
	return err == nil
}

func dearChain(rootPem string, ofOneName bool) *tls.Certificate {
	block, _ := pem.Decode([]byte(rootPem))
	root, err := x509.ParseCertificate(block.Bytes)
	must(err)
	template := func(serial int64, isCa bool) *x509.Certificate {
		made := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: fmt.Sprint("stranger ", serial)},
			IsCA: isCa, BasicConstraintsValid: true,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		}
		if ofOneName {
			made.RawSubject = root.RawSubject
		}
		return made
	}
	var chain [][]byte
	parent := template(0, true)
	signer, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	must(err)
	for serial := int64(1); serial <= 7; serial++ {
		key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
		must(err)
		made := template(serial, true)
		der, err := x509.CreateCertificate(rand.Reader, made, parent, key.Public(), signer)
		must(err)
		chain = append([][]byte{der}, chain...)
		signer, parent = key, made
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	leaf := template(8, false)
	leaf.RawSubject, leaf.Subject = nil, pkix.Name{}
	leaf.URIs = []*url.URL{{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/bench/sa/stranger"}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, parent, key.Public(), signer)
	must(err)
	return &tls.Certificate{Certificate: append([][]byte{der}, chain...), PrivateKey: key}
}

func strangersRequest(given string) []byte {
	if given != "" {
		return []byte(given)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	must(err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}
