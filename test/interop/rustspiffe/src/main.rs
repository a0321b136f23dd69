//! rustspiffe is a program that uses the crate `spiffe`, on tonic, as its users do, against the socket that SPIFFE_ENDPOINT_SOCKET names.
//! It prints a line of JSON for each thing that it learns: the identity of a token that the Workload API gave and validated, then each
//! certificate in use, verified by its own bundle.

use serde_json::json;
use spiffe::{BundleSource, WorkloadApiClient, X509Source};
use std::error::Error;
use std::time::Duration;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{anchor_from_trusted_cert, EndEntityCert, KeyUsage, ALL_VERIFICATION_ALGS};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    tokio::time::timeout(PATIENCE, run()).await?
}

async fn run() -> Result<(), Box<dyn Error>> {
    let client = WorkloadApiClient::connect_env().await?;
    let token = client.fetch_jwt_svid(["shop"], None).await?;
    let validated = client.validate_jwt_token("shop", token.token()).await?;
    println!("{}", json!({ "token": validated.spiffe_id().to_string() }));

    let source = X509Source::new().await?;
    let mut updates = source.updated();
    loop {
        println!("{}", certificate(&source)?);
        updates.changed().await?;
    }
}

fn certificate(source: &X509Source) -> Result<serde_json::Value, Box<dyn Error>> {
    let svid = source.svid()?;
    let id = svid.spiffe_id();
    let bundle = source.bundle_for_trust_domain(id.trust_domain())?.ok_or("no bundle")?;
    let roots: Vec<CertificateDer> = bundle.authorities().iter().map(|each| CertificateDer::from(each.as_bytes())).collect();
    let anchors = roots.iter().map(anchor_from_trusted_cert).collect::<Result<Vec<_>, _>>()?;
    let chain: Vec<CertificateDer> = svid.cert_chain().iter().map(|each| CertificateDer::from(each.as_bytes())).collect();
    let leaf = EndEntityCert::try_from(&chain[0])?;
    for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
        leaf.verify_for_usage(ALL_VERIFICATION_ALGS, &anchors, &chain[1..], UnixTime::now(), usage, None, None)?;
    }
    Ok(json!({ "id": id.to_string(), "serial": hex(leaf.serial()) }))
}

/// Without the zeros in front.
fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|each| format!("{each:02x}")).collect();
    digits.trim_start_matches('0').to_string()
}
