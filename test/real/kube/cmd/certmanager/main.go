// Command certmanager runs the controllers of cert-manager that issue
// CertificateRequests (and, with the gate on, Kubernetes CSRs) from a CA or
// self-signed issuer. It is cert-manager's own code; only this main is ours,
// since cert-manager's binaries are modules that no module proxy serves.
package main

import (
	"context"
	"flag"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cert-manager/cert-manager/pkg/controller"
	crapprover "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	crca "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	crself "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	csrca "github.com/cert-manager/cert-manager/pkg/controller/certificatesigningrequests/ca"
	csrself "github.com/cert-manager/cert-manager/pkg/controller/certificatesigningrequests/selfsigned"
	"github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	"github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
	"k8s.io/klog/v2"
)

func main() {
	kc := flag.String("kubeconfig", "", "")
	ns := flag.String("cluster-resource-namespace", "cert-manager", "")
	whileStdin := flag.Bool("while-stdin", false, "end when standard input ends, which it does with whoever started this")
	klog.InitFlags(nil)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	cf, err := controller.NewContextFactory(ctx, controller.ContextOptions{
		Kubeconfig: *kc, KubernetesAPIQPS: 200, KubernetesAPIBurst: 400,
		IssuerOptions: controller.IssuerOptions{ClusterResourceNamespace: *ns},
	})
	if err != nil {
		log.Fatal(err)
	}
	cctx, err := cf.Build()
	if err != nil {
		log.Fatal(err)
	}
	known := controller.Known()
	for _, n := range []string{issuers.ControllerName, clusterissuers.ControllerName, crapprover.ControllerName,
		crca.CRControllerName, crself.CRControllerName, csrca.CSRControllerName, csrself.CSRControllerName} {
		c, err := known[n](cf)
		if err != nil {
			log.Fatalf("%s: %v", n, err)
		}
		go func() {
			log.Printf("starting %s", n)
			if err := c.Run(5, ctx); err != nil {
				log.Fatalf("%s: %v", n, err)
			}
		}()
	}
	cctx.SharedInformerFactory.Start(ctx.Done())
	cctx.KubeSharedInformerFactory.Start(ctx.Done())
	cctx.HTTP01ResourceMetadataInformersFactory.Start(ctx.Done())
	if *whileStdin {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			stop()
		}()
	}
	<-ctx.Done()
	time.Sleep(200 * time.Millisecond)
}
