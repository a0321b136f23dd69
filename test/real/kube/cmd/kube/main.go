// Command kube: one process holding a real etcd server, a real kube-apiserver
// and the parts of kube-controller-manager that handle certificates, on
// loopback, for tests. Everything it makes (keys, kubeconfig) is put in --dir;
// the file `ready` there, with the server's URL in it, says that it is up.
// It ends on SIGTERM, and with --while-stdin when standard input ends, which
// it does with whoever started it.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/pkg/controller/certificates/approver"
	"k8s.io/kubernetes/pkg/controller/certificates/cleaner"
	"k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
	"k8s.io/kubernetes/pkg/controller/certificates/signer"
	nsctl "k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
)

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

const issuer = "https://kubernetes.default.svc.cluster.local"

var dir string

func path(n string) string { return filepath.Join(dir, n) }

func writePEM(name, typ string, der []byte) {
	must(os.WriteFile(path(name), pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}), 0o600))
}

func newKey(name string) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	der, err := x509.MarshalECPrivateKey(k)
	must(err)
	writePEM(name+".key", "EC PRIVATE KEY", der)
	pub, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	must(err)
	writePEM(name+".pub", "PUBLIC KEY", pub)
	return k
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	must(err)
	return n
}

func newCA(name, cn string) (*x509.Certificate, *ecdsa.PrivateKey) {
	k := newKey(name)
	t := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: cn}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(240 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &k.PublicKey, k)
	must(err)
	writePEM(name+".crt", "CERTIFICATE", der)
	c, err := x509.ParseCertificate(der)
	must(err)
	return c, k
}

func leaf(name string, ca *x509.Certificate, cak *ecdsa.PrivateKey, subj pkix.Name, server bool) {
	k := newKey(name)
	t := &x509.Certificate{SerialNumber: serial(), Subject: subj, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(200 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if server {
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		t.DNSNames = []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
		t.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 0, 0, 1)}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca, &k.PublicKey, cak)
	must(err)
	writePEM(name+".crt", "CERTIFICATE", der)
}

func freePort() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func main() {
	fs := flag.NewFlagSet("kube", flag.ExitOnError)
	fs.StringVar(&dir, "dir", "", "directory for state (made when missing)")
	port := fs.Int("port", 0, "apiserver port (0: any free one)")
	whileStdin := fs.Bool("while-stdin", false, "end when standard input ends")
	extra := fs.String("apiserver-args", "", "more kube-apiserver flags, blank separated")
	_ = fs.Parse(os.Args[1:])
	t0 := time.Now()
	if dir == "" {
		log.Fatal("--dir")
	}
	dir, _ = filepath.Abs(dir)
	must(os.MkdirAll(dir, 0o700))
	if *port == 0 {
		*port = freePort()
	}
	must(os.WriteFile(path("pid"), []byte(fmt.Sprint(os.Getpid())), 0o644))

	if _, err := os.Stat(path("ca.crt")); err != nil {
		ca, cak := newCA("ca", "testkube-ca")
		leaf("apiserver", ca, cak, pkix.Name{CommonName: "kube-apiserver"}, true)
		leaf("admin", ca, cak, pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}, false)
		newKey("sa")
		newCA("csr-ca", "testkube-csr-ca") // signs kubernetes.io/* CSRs; not a client CA
	}
	server := fmt.Sprintf("https://127.0.0.1:%d", *port)
	must(os.WriteFile(path("kubeconfig"), []byte(fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: t, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: admin, user: {client-certificate: %q, client-key: %q}}]
contexts: [{name: t, context: {cluster: t, user: admin}}]
current-context: t
`, server, path("ca.crt"), path("admin.crt"), path("admin.key"))), 0o600))

	// etcd
	ec := embed.NewConfig()
	ec.Name = "default"
	ec.Dir = path("etcd")
	ec.LogLevel = "error"
	ec.UnsafeNoFsync = true
	cu, _ := url.Parse(fmt.Sprintf("http://127.0.0.1:%d", freePort()))
	pu, _ := url.Parse(fmt.Sprintf("http://127.0.0.1:%d", freePort()))
	ec.ListenClientUrls, ec.AdvertiseClientUrls = []url.URL{*cu}, []url.URL{*cu}
	ec.ListenPeerUrls, ec.AdvertisePeerUrls = []url.URL{*pu}, []url.URL{*pu}
	ec.InitialCluster = ec.InitialClusterFromName(ec.Name)
	e, err := embed.StartEtcd(ec)
	must(err)
	<-e.Server.ReadyNotify()
	log.Printf("etcd ready on %s after %v", cu, time.Since(t0))

	// kube-apiserver
	cmd := app.NewAPIServerCommand()
	args := []string{
		"--etcd-servers=" + cu.String(),
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", *port),
		"--cert-dir=" + dir,
		"--tls-cert-file=" + path("apiserver.crt"), "--tls-private-key-file=" + path("apiserver.key"),
		"--client-ca-file=" + path("ca.crt"),
		"--service-account-issuer=" + issuer,
		"--service-account-key-file=" + path("sa.pub"),
		"--service-account-signing-key-file=" + path("sa.key"),
		"--api-audiences=" + issuer,
		"--authorization-mode=RBAC",
		"--service-cluster-ip-range=10.0.0.0/24",
		"--endpoint-reconciler-type=none",
		"--enable-priority-and-fairness=false",
		"--allow-privileged=true",
		"--feature-gates=ClusterTrustBundle=true,PodCertificateRequest=true",
		"--runtime-config=certificates.k8s.io/v1beta1=true",
	}
	args = append(args, strings.Fields(*extra)...)
	cmd.SetArgs(args)
	done := make(chan error, 1)
	go func() { done <- cmd.Execute() }()

	cfg, err := clientcmd.BuildConfigFromFlags("", path("kubeconfig"))
	must(err)
	cfg.QPS, cfg.Burst = 200, 400
	cl := kubernetes.NewForConfigOrDie(cfg)
	cctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ctx := klog.NewContext(cctx, klog.Background())
	for {
		select {
		case err := <-done:
			log.Fatalf("apiserver: %v", err)
		default:
		}
		if b, err := cl.RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err == nil && string(b) == "ok" {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	log.Printf("apiserver ready on %s after %v", server, time.Since(t0))
	controllers(ctx, cfg, cl)
	// "default" namespace and its service account stand before we say ready
	for {
		if _, err := cl.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{}); err == nil {
			break
		} else if !apierrors.IsNotFound(err) {
			log.Print(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	must(os.WriteFile(path("ready"), []byte(server), 0o644))
	log.Printf("READY %s kubeconfig=%s after %v", server, path("kubeconfig"), time.Since(t0))
	// The apiserver drains on SIGTERM too, but would wait for our own
	// controllers' watches: stop those, then give it a moment.
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGTERM, os.Interrupt)
	if *whileStdin {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			sig <- syscall.SIGTERM
		}()
	}
	select {
	case err = <-done:
		log.Fatalf("apiserver: %v", err)
	case <-sig:
		cancel()
		select {
		case <-done:
		case <-time.After(2 * time.Second):
		}
	}
	os.Remove(path("ready"))
	os.Exit(0)
}

func controllers(ctx context.Context, cfg *rest.Config, cl kubernetes.Interface) {
	f := informers.NewSharedInformerFactory(cl, 10*time.Hour)
	csrs := f.Certificates().V1().CertificateSigningRequests()
	var run []func()
	for _, n := range []func() (*signer.CSRSigningController, error){
		func() (*signer.CSRSigningController, error) {
			return signer.NewKubeAPIServerClientCSRSigningController(ctx, cl, csrs, path("csr-ca.crt"), path("csr-ca.key"), 24*time.Hour)
		},
		func() (*signer.CSRSigningController, error) {
			return signer.NewLegacyUnknownCSRSigningController(ctx, cl, csrs, path("csr-ca.crt"), path("csr-ca.key"), 24*time.Hour)
		},
		func() (*signer.CSRSigningController, error) {
			return signer.NewKubeletServingCSRSigningController(ctx, cl, csrs, path("csr-ca.crt"), path("csr-ca.key"), 24*time.Hour)
		},
		func() (*signer.CSRSigningController, error) {
			return signer.NewKubeletClientCSRSigningController(ctx, cl, csrs, path("csr-ca.crt"), path("csr-ca.key"), 24*time.Hour)
		},
	} {
		s, err := n()
		must(err)
		run = append(run, func() { s.Run(ctx, 2) })
	}
	ap := approver.NewCSRApprovingController(ctx, cl, csrs)
	run = append(run, func() { ap.Run(ctx, 2) })
	cc := cleaner.NewCSRCleanerController(cl.CertificatesV1().CertificateSigningRequests(), csrs)
	run = append(run, func() { cc.Run(ctx, 1) })

	sac, err := serviceaccount.NewServiceAccountsController(klog.Background(), f.Core().V1().ServiceAccounts(), f.Core().V1().Namespaces(), cl,
		serviceaccount.ServiceAccountsControllerOptions{ServiceAccounts: []corev1.ServiceAccount{{ObjectMeta: metav1.ObjectMeta{Name: "default"}}}})
	must(err)
	run = append(run, func() { sac.Run(ctx, 1) })
	ca, err := os.ReadFile(path("ca.crt"))
	must(err)
	rp, err := rootcacertpublisher.NewPublisher(f.Core().V1().ConfigMaps(), f.Core().V1().Namespaces(), cl, ca)
	must(err)
	run = append(run, func() { rp.Run(ctx, 1) })
	md, err := metadata.NewForConfig(cfg)
	must(err)
	nc := nsctl.NewNamespaceController(ctx, cl, md, cl.Discovery().ServerPreferredNamespacedResources, f.Core().V1().Namespaces(), 5*time.Minute, corev1.FinalizerKubernetes)
	run = append(run, func() { nc.Run(ctx, 2) })
	f.Start(ctx.Done())
	for _, r := range run {
		go r()
	}
}
