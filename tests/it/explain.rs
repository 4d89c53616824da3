//! What a code means, from the command line and from a gate.

use anyhow::{Result, ensure};
use istio_ca_gate::explain::entries;

use crate::command::run;
use crate::product::{Product, world};

#[tokio::test]
async fn each_code_is_told_by_its_name_in_plain_text_and_all_are_listed() -> Result<()> {
    let list = run(&["explain"], &[]).await?;
    ensure!(list.code == Some(0), "{list:?}");
    for entry in entries() {
        ensure!(list.stdout.lines().any(|line| line.trim() == entry.code), "{} is not listed", entry.code);
    }
    for (code, says) in [
        ("VaultSealed", "vault operator unseal"),
        ("vault-tls", "BadSignature"),
        ("istiocagateslow", "IstioCaGateSlow (alert)"),
    ] {
        let told = run(&["explain", code], &[]).await?;
        ensure!(told.code == Some(0) && told.stdout.contains(says), "{told:?}");
        ensure!(!told.stdout.contains('\u{1b}') && told.stderr.is_empty(), "{told:?}");
    }
    run(&["explain", "RootMising"], &[]).await?.is_refused(&["RootMising", "did you mean RootMissing?"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_tells_it_on_a_page_that_a_browser_may_do_nothing_with_but_show_it() -> Result<()> {
    let (kubernetes, vault) = world().await?;
    let product = Product::start(kubernetes, vault, &["--role", "sync", "--cluster", "nas"]).await?;
    let (address, port) = product.address();
    for base in [product.url(""), format!("https://{address}:{port}/")] {
        let get =
            async |path: &str| product.client()?.get(format!("{base}{path}")).send().await.map_err(anyhow::Error::from);
        let (front, answer) = (get("").await?, get("reasons/VaultSealed").await?);
        ensure!(answer.status() == 200, "{answer:?}");
        for name in ["content-type", "content-security-policy", "x-content-type-options", "referrer-policy"] {
            ensure!(answer.headers().get(name).is_some_and(|it| front.headers().get(name) == Some(it)), "{name}");
        }
        let page = answer.text().await?;
        ensure!(page.contains("<h1>VaultSealed</h1>") && page.contains("vault operator unseal"), "{page}");
        ensure!(page.contains("href=\"/reasons/VaultUnreachable\""), "{page}");
        for other in ["reasons/", "reasons/Nothing", "reasons/%3Cscript%3E", "reasons/VaultSealed/x"] {
            let answer = get(other).await?;
            ensure!(answer.status() == 404 && !answer.text().await?.contains("script"), "{other}");
        }
    }
    Ok(())
}
