// caload asks a certificate authority for certificates, over istio.v1.auth.IstioCertificateService/CreateCertificate, as fast as it answers:
// so many connections, one call at a time in each. It reads what to do from standard input as JSON and prints what it measured as JSON.
//
// It is to cost next to nothing beside the authority: keys and requests are made before, connections stay open, replies are looked at no
// further than to their status once the first of each connection has proven right.
package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

type order struct {
	Address    string
	ServerName string
	RootPem    string
	// Callers are shared out over the connections, in turn.
	Callers []caller
	// Certificate: prove yourself by a certificate that the token bought before. Else by the token in every call.
	Certificate bool
	// Tokens that are good for one call each, in place of those of the callers; the run ends with the last of them.
	OneTimeTokens []string
	Connections   int
	// Who floods the authority beside them; nobody where it is missing.
	Strangers *strangers
	WarmUpMs  int
	WindowMs  int
	// Of the authority, to see what a call costs it; its children count with it.
	Pid int
}

type caller struct {
	Uri   string
	Token string
}

type result struct {
	Calls     int     `json:"calls"`
	PerSecond float64 `json:"perSecond"`
	P50Ms     float64 `json:"p50Ms"`
	P99Ms     float64 `json:"p99Ms"`
	// Of this program, as a share of one processor.
	ClientCpu float64 `json:"clientCpu"`
	// Of the authority, as a share of one processor.
	ServerCpu float64 `json:"serverCpu"`
	// Calls of strangers that were answered, warm-up included.
	Strangers int `json:"strangers"`
	// By status, of the calls that failed.
	Failures map[string]int `json:"failures"`
}

// What one connection needs.
type line struct {
	caller caller
	body   []byte
	client *http.Client
}

var out = result{Failures: map[string]int{}}

func main() {
	var asked order
	must(json.NewDecoder(os.Stdin).Decode(&asked))
	lines := make([]*line, asked.Connections)
	parallel(asked.Connections, func(i int) { lines[i] = connect(&asked, asked.Callers[i%len(asked.Callers)]) })
	tokens := make(chan string, len(asked.OneTimeTokens))
	for _, each := range asked.OneTimeTokens {
		tokens <- each
	}
	close(tokens)

	endOfFlood := flood(&asked)
	warmUntil := time.Now().Add(time.Duration(asked.WarmUpMs) * time.Millisecond)
	until := warmUntil.Add(time.Duration(asked.WindowMs) * time.Millisecond)
	var before, serverBefore time.Duration
	time.AfterFunc(time.Until(warmUntil), func() { before, serverBefore = cpu(), cpuOf(asked.Pid) })
	var lock sync.Mutex
	var times []time.Duration
	last := warmUntil
	// One that waits for longer than the window is what was measured.
	nothing := func() bool {
		lock.Lock()
		defer lock.Unlock()
		return len(times) == 0 && len(out.Failures) == 0
	}
	parallel(asked.Connections, func(i int) {
		for time.Now().Before(until) || nothing() {
			token := lines[i].caller.Token
			if len(asked.OneTimeTokens) > 0 {
				var left bool
				if token, left = <-tokens; !left {
					return
				}
			} else if asked.Certificate {
				token = ""
			}
			begun := time.Now()
			_, err := call(&asked, lines[i], token)
			ended := time.Now()
			lock.Lock()
			if begun.After(warmUntil) {
				last = ended
				if err != nil {
					out.Failures[err.Error()]++
				} else {
					times = append(times, ended.Sub(begun))
				}
			}
			lock.Unlock()
		}
	})
	took := max(last.Sub(warmUntil), time.Millisecond)
	out.Strangers = endOfFlood()
	slices.Sort(times)
	out.Calls = len(times)
	out.PerSecond = float64(len(times)) / took.Seconds()
	out.P50Ms, out.P99Ms = percentile(times, 50), percentile(times, 99)
	out.ClientCpu = (cpu() - before).Seconds() / took.Seconds()
	out.ServerCpu = (cpuOf(asked.Pid) - serverBefore).Seconds() / took.Seconds()
	must(json.NewEncoder(os.Stdout).Encode(out))
}

// connect makes a key, a request and a connection, and with `Certificate` gets the certificate that the connection is to show.
func connect(asked *order, who caller) *line {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	uri, err := url.Parse(who.Uri)
	must(err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{uri}}, key)
	must(err)
	csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	made := &line{caller: who, body: frame(csr, 3600), client: client(asked, nil)}
	if !asked.Certificate {
		return made
	}
	chain, err := call(asked, made, who.Token)
	must(err)
	shown := tls.Certificate{PrivateKey: key}
	for _, each := range chain {
		if block, _ := pem.Decode([]byte(each)); block != nil {
			shown.Certificate = append(shown.Certificate, block.Bytes)
		}
	}
	leaf, err := x509.ParseCertificate(shown.Certificate[0])
	must(err)
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != who.Uri {
		must(fmt.Errorf("%s got a certificate for %v", who.Uri, leaf.URIs))
	}
	made.client = client(asked, &shown)
	return made
}

func client(asked *order, certificate *tls.Certificate) *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(asked.RootPem))
	config := &tls.Config{RootCAs: roots, ServerName: asked.ServerName}
	if certificate != nil {
		// Whatever authorities the server names.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}, Timeout: 30 * time.Second}
}

// frame is a gRPC message: IstioCertificateRequest with csr (1) and validity_duration (3).
func frame(csr []byte, seconds uint64) []byte {
	message := append([]byte{1<<3 | 2}, binary.AppendUvarint(nil, uint64(len(csr)))...)
	message = append(message, csr...)
	message = binary.AppendUvarint(append(message, 3<<3), seconds)
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// call returns the elements of cert_chain (1).
func call(asked *order, over *line, token string) ([]string, error) {
	reply, err := over.client.Do(newCall(asked, over.body, token))
	if err != nil {
		return nil, errors.New("transport")
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		return nil, errors.New("transport")
	}
	status := reply.Trailer.Get("grpc-status") + reply.Header.Get("grpc-status")
	if status != "0" {
		return nil, errors.New("status " + status)
	}
	var chain []string
	for rest := body[5:]; len(rest) > 0 && rest[0] == 1<<3|2; {
		length, size := binary.Uvarint(rest[1:])
		rest = rest[1+size:]
		chain = append(chain, string(rest[:length]))
		rest = rest[length:]
	}
	if len(chain) == 0 {
		return nil, errors.New("empty reply")
	}
	return chain, nil
}

func newCall(asked *order, body []byte, token string) *http.Request {
	request, err := http.NewRequest("POST", "https://"+asked.Address+"/istio.v1.auth.IstioCertificateService/CreateCertificate", bytes.NewReader(body))
	must(err)
	request.Header.Set("content-type", "application/grpc")
	request.Header.Set("te", "trailers")
	if token != "" {
		request.Header.Set("authorization", "Bearer "+token)
	}
	return request
}

func parallel(count int, work func(int)) {
	var all sync.WaitGroup
	for i := range make([]struct{}, count) {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			work(i)
		}(i)
	}
	all.Wait()
}

func percentile(sorted []time.Duration, percent int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[min(len(sorted)*percent/100, len(sorted)-1)].Microseconds()) / 1000
}

func cpu() time.Duration {
	var used syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// cpuOf is what a process and its children have taken so far, by proc(5), in hundredths of a second.
func cpuOf(pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(err)
	// The name in brackets may hold anything; what follows it are numbers.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, err := strconv.Atoi(fields[11])
	must(err)
	system, err := strconv.Atoi(fields[12])
	must(err)
	used := time.Duration(user+system) * 10 * time.Millisecond
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	must(err)
	for _, list := range lists {
		children, _ := os.ReadFile(list)
		for _, each := range strings.Fields(string(children)) {
			child, err := strconv.Atoi(each)
			must(err)
			used += cpuOf(child)
		}
	}
	return used
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "caload:", err)
		os.Exit(1)
	}
}
