// gospiffe is a program that uses go-spiffe as its users do, against the socket that SPIFFE_ENDPOINT_SOCKET names. It prints a line of JSON
// for each thing that it learns:
//
//	gospiffe x509 N                the certificate in use, verified by its own bundle, N times: now, and after each update
//	gospiffe bundles               each trust domain that is believed, with the number of its authorities
//	gospiffe jwt AUDIENCE...       a token for the audiences, verified by the bundles of the same source
//	gospiffe validate AUDIENCE     what the Workload API says to the token in standard input, and what go-spiffe says to it
//	gospiffe serve                 a mutual TLS server: its address, then each peer or why it was refused
//	gospiffe dial ADDRESS          a mutual TLS client: the server's identity
//	gospiffe slow SECONDS CRT KEY  a gRPC server as grpc-go makes it by default: its port; it answers every call ABORTED after so long
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

const patience = 20 * time.Second

func main() {
	limit := patience
	if os.Args[1] == "slow" {
		limit = 5 * time.Minute
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := run(ctx, os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, command string, args []string) error {
	switch command {
	case "x509":
		return x509(ctx, args[0])
	case "bundles":
		return bundles(ctx)
	case "jwt":
		return jwt(ctx, args)
	case "validate":
		return validate(ctx, args[0])
	case "serve":
		return serve(ctx)
	case "dial":
		return dial(ctx, args[0])
	case "slow":
		return slow(ctx, args[0], args[1], args[2])
	}
	return fmt.Errorf("unknown command %q", command)
}

func slow(ctx context.Context, seconds, certFile, keyFile string) error {
	wait, err := strconv.Atoi(seconds)
	if err != nil {
		return err
	}
	creds, err := credentials.NewServerTLSFromFile(certFile, keyFile)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	say(map[string]any{"port": listener.Addr().(*net.TCPAddr).Port})
	server := grpc.NewServer(grpc.Creds(creds), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		select {
		case <-time.After(time.Duration(wait) * time.Second):
			return status.Error(codes.Aborted, "waited to the end")
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}))
	go func() {
		<-ctx.Done()
		server.Stop()
	}()
	return server.Serve(listener)
}

func x509(ctx context.Context, times string) error {
	count, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	for seen := 1; ; seen++ {
		svid, err := source.GetX509SVID()
		if err != nil {
			return err
		}
		id, _, err := x509svid.Verify(svid.Certificates, source)
		if err != nil {
			return err
		}
		say(map[string]any{"id": id.String(), "serial": fmt.Sprintf("%x", svid.Certificates[0].SerialNumber), "hint": svid.Hint})
		if seen == count {
			return nil
		}
		select {
		case <-source.Updated():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func bundles(ctx context.Context) error {
	source, err := workloadapi.NewBundleSource(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	client, err := workloadapi.New(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	set, err := client.FetchX509Bundles(ctx)
	if err != nil {
		return err
	}
	for _, each := range set.Bundles() {
		bundle, err := source.GetBundleForTrustDomain(each.TrustDomain())
		if err != nil {
			return err
		}
		say(map[string]any{"trustDomain": each.TrustDomain().Name(), "x509": len(bundle.X509Authorities()), "jwt": len(bundle.JWTAuthorities())})
	}
	return nil
}

func jwt(ctx context.Context, audience []string) error {
	source, err := workloadapi.NewJWTSource(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	svid, err := source.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience[0], ExtraAudiences: audience[1:]})
	if err != nil {
		return err
	}
	verified, err := jwtsvid.ParseAndValidate(svid.Marshal(), source, audience[:1])
	if err != nil {
		return err
	}
	lifetime := int(time.Until(verified.Expiry).Seconds())
	say(map[string]any{"id": verified.ID.String(), "audience": verified.Audience, "lifetime": lifetime, "hint": svid.Hint, "token": svid.Marshal()})
	return nil
}

func validate(ctx context.Context, audience string) error {
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	token := strings.TrimSpace(string(input))
	client, err := workloadapi.New(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	source, err := workloadapi.NewJWTSource(ctx, workloadapi.WithClient(client))
	if err != nil {
		return err
	}
	defer source.Close()
	verdict := func(svid *jwtsvid.SVID, err error) string {
		if err != nil {
			return err.Error()
		}
		return svid.ID.String()
	}
	say(map[string]any{
		"workloadApi": verdict(client.ValidateJWTSVID(ctx, token, audience)),
		"gospiffe":    verdict(jwtsvid.ParseAndValidate(token, source, []string{audience})),
	})
	return nil
}

func serve(ctx context.Context) error {
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeAny()))
	if err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		listener.Close()
	}()
	say(map[string]any{"address": listener.Addr().String()})
	for {
		connection, err := listener.Accept()
		if err != nil {
			return nil
		}
		say(greet(connection))
	}
}

func greet(connection net.Conn) map[string]any {
	defer connection.Close()
	secure := connection.(*tls.Conn)
	if err := secure.Handshake(); err != nil {
		return map[string]any{"refused": err.Error()}
	}
	id, err := x509svid.IDFromCert(secure.ConnectionState().PeerCertificates[0])
	if err != nil {
		return map[string]any{"refused": err.Error()}
	}
	fmt.Fprintln(connection, "hello", id)
	return map[string]any{"peer": id.String()}
}

func dial(ctx context.Context, address string) error {
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	connection, err := tls.Dial("tcp", address, tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeAny()))
	if err != nil {
		return err
	}
	defer connection.Close()
	greeting, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil {
		return err
	}
	id, err := x509svid.IDFromCert(connection.ConnectionState().PeerCertificates[0])
	if err != nil {
		return err
	}
	say(map[string]any{"server": id.String(), "greeting": strings.TrimSpace(greeting)})
	return nil
}

func say(facts map[string]any) {
	line, err := json.Marshal(facts)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}
