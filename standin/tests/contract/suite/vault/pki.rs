//! The PKI engine: roots that are made once, the signers under them, and what policies make of it.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use testbed::VaultApi;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use super::{ANY, Answered, Caller, DENIED, envelope};

const GENERATE: &str = "pki/root/generate/internal";
const SIGN: &str = "pki/issuer/root-1/sign-intermediate";
const SIGNER: &str = "Istio Intermediate CA nas";
const HOUR: i64 = 3600;

const NO_AIA: &str = "This mount hasn't configured any authority information access (AIA) fields; this may make it harder for systems to find missing certificates in the chain or to validate revocation status of certificates. Consider updating /config/urls or the newly generated issuer with this information.";
const NO_MORE_BELOW: &str = "Max path length of the signed certificate is zero. This certificate cannot be used to issue intermediate CA certificates.";

/// What a root is asked for with; a smaller key than in earnest.
fn root(name: &str) -> Value {
    json!({
        "issuer_name": name, "common_name": "Istio Root CA", "organization": "Istio", "ttl": "87600h", "key_type": "ec",
        "key_bits": "256", "not_before_duration": "1h", "exclude_cn_from_sans": "true", "format": "pem",
    })
}

/// A certificate request for a key of its own.
fn csr(name: &str) -> Result<String> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params.serialize_request(&KeyPair::generate()?)?.pem()?)
}

/// What a signer is asked for with.
fn signer() -> Result<Value> {
    Ok(json!({
        "csr": csr("of no account")?, "common_name": SIGNER, "organization": "Istio", "ttl": "2160h",
        "max_path_length": "0", "not_before_duration": "1h", "format": "pem",
    }))
}

fn but(mut body: Value, name: &str, value: impl Into<Value>) -> Value {
    body[name] = value.into();
    body
}

fn without(mut body: Value, name: &str) -> Value {
    body.as_object_mut().map(|body| body.remove(name));
    body
}

/// A mount for roots, and one root.
async fn mounted(vault: &VaultApi) -> Result<Caller<'_>> {
    let caller = Caller::root(vault);
    let body = json!({ "type": "pki", "config": { "max_lease_ttl": "87600h" } });
    caller.post("sys/mounts/pki", body).await?.done()?;
    Ok(caller)
}

async fn with_root(vault: &VaultApi) -> Result<Caller<'_>> {
    let caller = mounted(vault).await?;
    let made = caller.post(GENERATE, root("root-1")).await?;
    ensure!(made.status == 200, "{made:?}");
    Ok(caller)
}

fn text<'a>(answered: &'a Answered, field: &str) -> Result<&'a str> {
    answered.body["data"][field].as_str().with_context(|| format!("no {field}: {answered:?}"))
}

/// Looks into the first certificate of a PEM file.
fn look<T>(pem: &str, see: impl FnOnce(&X509Certificate<'_>) -> Result<T>) -> Result<T> {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes())?;
    let (_, certificate) = X509Certificate::from_der(&block.contents)?;
    see(&certificate)
}

/// The identifiers of a certificate's own key and of that of its issuer.
fn key_ids(certificate: &X509Certificate<'_>) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let (mut own, mut issuers) = (None, None);
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => own = Some(id.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                // The issuer's name and number beside it are what Envoy stumbles over.
                let alone = id.authority_cert_issuer.is_none() && id.authority_cert_serial.is_none();
                issuers = id.key_identifier.as_ref().filter(|_| alone).map(|id| id.0.to_vec());
            }
            _ => {}
        }
    }
    (own, issuers)
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let attributes = certificate.subject().iter_attributes();
    attributes.filter_map(|attribute| attribute.as_str().ok()).map(str::to_owned).collect()
}

fn ends(certificate: &X509Certificate<'_>) -> (i64, i64) {
    (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp())
}

pub async fn a_root_is_made_once_by_its_name(vault: &VaultApi) -> Result<()> {
    let caller = mounted(vault).await?;
    let made = caller.post(GENERATE, root("root-1")).await?;
    let expiration = made.body["data"]["expiration"].clone();
    let mut pattern = envelope(
        "pki",
        json!({
            "certificate": ANY, "expiration": expiration, "issuer_id": ANY, "issuer_name": "root-1", "issuing_ca": ANY,
            "key_id": ANY, "key_name": "", "serial_number": ANY,
        }),
    );
    pattern["warnings"] = json!([NO_AIA]);
    let made = made.is(200, pattern)?;
    let pem = text(&made, "certificate")?;
    ensure!(!pem.ends_with('\n') && pem == text(&made, "issuing_ca")?, "{pem:?}");
    look(pem, |certificate| {
        let (from, until) = ends(certificate);
        ensure!(until - from == 87_601 * HOUR && expiration == json!(until), "{from} {until}");
        ensure!(names(certificate) == ["Istio", "Istio Root CA"], "{:?}", names(certificate));
        let basic = certificate.basic_constraints()?.context("none")?;
        ensure!(basic.critical && basic.value.ca && basic.value.path_len_constraint.is_none());
        let usage = certificate.key_usage()?.context("none")?;
        ensure!(usage.critical && usage.value.flags == 0b110_0000, "{:b}", usage.value.flags);
        ensure!(certificate.subject_alternative_name()?.is_none());
        let (own, issuers) = key_ids(certificate);
        ensure!(own.is_some() && own == issuers);
        Ok(())
    })?;
    for _ in 0..2 {
        caller.post(GENERATE, root("root-1")).await?.refuses(400, "issuer name already in use")?;
    }
    let kept = caller.get("pki/issuer/root-1/json").await?;
    ensure!(text(&kept, "certificate")?.trim_end() == pem, "{kept:?}");
    Ok(())
}

pub async fn of_eight_that_make_one_root_one_makes_it(vault: &VaultApi) -> Result<()> {
    let caller = mounted(vault).await?;
    let answers = try_join_all((0..8).map(|_| caller.post(GENERATE, root("root-1")))).await?;
    let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    let [made] = &made[..] else { anyhow::bail!("{made:?}") };
    for answer in refused {
        answer.refuses(400, "issuer name already in use")?;
    }
    let kept = caller.get("pki/issuer/root-1/json").await?;
    ensure!(text(&kept, "certificate")?.trim_end() == text(made, "certificate")?, "{kept:?}");
    let listed = caller.list("pki/issuers").await?;
    ensure!(listed.body["data"]["keys"].as_array().is_some_and(|keys| keys.len() == 1), "{listed:?}");
    Ok(())
}

pub async fn without_a_name_each_request_makes_another_root(vault: &VaultApi) -> Result<()> {
    let caller = with_root(vault).await?;
    caller.post(GENERATE, root("")).await?.refuses(400, "expected non-empty issuer name")?;
    for _ in 0..2 {
        let made = caller.post(GENERATE, without(root(""), "issuer_name")).await?;
        ensure!(made.status == 200 && made.body["data"]["issuer_name"] == "", "{made:?}");
    }
    let listed = caller.list("pki/issuers").await?;
    ensure!(listed.body["data"]["keys"].as_array().is_some_and(|keys| keys.len() == 3), "{listed:?}");
    Ok(())
}

pub async fn a_root_is_asked_for_in_vaults_terms(vault: &VaultApi) -> Result<()> {
    let caller = mounted(vault).await?;
    let invalid = "Field validation failed: error converting input for field \"ttl\": time: invalid duration \"x\"";
    for (field, value, error) in [
        ("issuer_name", json!("default"), "reserved keyword 'default' can not be used as issuer name"),
        ("issuer_name", json!("a b"), "issuer name contained invalid characters"),
        ("key_type", json!("x"), "unknown key type x"),
        ("ttl", json!("x"), invalid),
    ] {
        caller.post(GENERATE, but(root("root-1"), field, value)).await?.refuses(400, error)?;
    }
    let small = but(but(root("root-1"), "key_type", "rsa"), "key_bits", "5");
    let error = "RSA keys < 2048 bits are unsafe and not supported: got 5";
    caller.post(GENERATE, small).await?.refuses(400, error)?;
    caller.list("pki/issuers").await?.silent(404)?;
    Ok(())
}

pub async fn an_issuer_is_told_without_a_token(vault: &VaultApi) -> Result<()> {
    let caller = with_root(vault).await?;
    let unknown = Caller::with(vault, "hvs.unknown");
    let told = caller.get("pki/issuer/root-1").await?;
    let (pem, id) = (text(&told, "certificate")?, text(&told, "issuer_id")?);
    ensure!(pem.starts_with("-----BEGIN CERTIFICATE-----\n") && pem.ends_with("\n-----END CERTIFICATE-----\n"));
    let public = json!({ "ca_chain": [pem], "certificate": pem, "issuer_id": id, "issuer_name": "root-1" });
    for (who, reference) in [(&Caller::nobody(vault), "root-1"), (&unknown, id), (&caller, "default")] {
        who.get(&format!("pki/issuer/{reference}/json")).await?.gives("", public.clone())?;
    }
    let raw = vault.raw(None, "GET", "pki/issuer/root-1/pem", &[], None).await?;
    ensure!(raw.headers()["content-type"] == "application/pem-certificate-chain", "{raw:?}");
    ensure!(raw.text().await? == pem);
    let list = json!({
        "key_info": { id: { "is_default": true, "issuer_name": "root-1", "key_id": ANY, "serial_number": ANY } },
        "keys": [id],
    });
    Caller::nobody(vault).list("pki/issuers").await?.gives("", list)?;
    Caller::nobody(vault).get("pki/issuer/root-1").await?.refuses(403, "permission denied")?;
    Ok(())
}

pub async fn an_issuer_that_is_not_there_is_an_error_of_the_server(vault: &VaultApi) -> Result<()> {
    let caller = with_root(vault).await?;
    let missing = "unable to find PKI issuer for reference: root-9";
    let listed = |error: &str| format!("1 error occurred:\n\t* {error}\n\n");
    for part in ["json", "pem"] {
        Caller::nobody(vault).get(&format!("pki/issuer/root-9/{part}")).await?.refuses(500, missing)?;
    }
    caller.get("pki/issuer/root-9").await?.refuses(500, &listed(missing))?;
    caller.ask("PATCH", "pki/issuer/root-9", Some(json!({}))).await?.refuses(500, &listed(missing))?;
    let signing = format!("could not fetch the CA certificate (was one set?): {missing}");
    caller.post("pki/issuer/root-9/sign-intermediate", signer()?).await?.refuses(500, &listed(&signing))?;
    caller.post("pki/issuer/a%20b/sign-intermediate", signer()?).await?.refuses(404, &listed("unsupported path"))?;
    // Deleted, it is no longer there, and its name is free again.
    let deleted = caller.delete("pki/issuer/root-1").await?;
    let warning = deleted.body["warnings"][0].as_str().unwrap_or_default();
    ensure!(warning.contains("(via issuer_ref root-1); this was configured as the default issuer."), "{deleted:?}");
    caller.delete("pki/issuer/root-1").await?.is(200, envelope("pki", Value::Null))?;
    caller.get("pki/issuer/root-1/json").await?.refuses(500, "unable to find PKI issuer for reference: root-1")?;
    caller.get("pki/issuer/default/json").await?.refuses(500, "no default issuer currently configured")?;
    ensure!(caller.post(GENERATE, root("root-1")).await?.status == 200);
    Ok(())
}

pub async fn where_no_pki_engine_is_mounted_a_right_tells_it(vault: &VaultApi) -> Result<()> {
    let policy = "path \"+/issuer/+/sign-intermediate\" { capabilities = [\"update\"] }";
    let caller = Caller::who_may(vault, policy).await?;
    let route = "no handler for route \"pki/issuer/root-1/sign-intermediate\". route entry not found.";
    caller.post(SIGN, signer()?).await?.refuses(404, route)?;
    caller.get("pki/issuer/root-1/json").await?.refuses(403, DENIED)?;
    Caller::nobody(vault).get("pki/issuer/root-1/json").await?.refuses(403, "permission denied")?;
    let astray = caller.post("secret/issuer/root-1/sign-intermediate", signer()?).await?;
    ensure!(astray.status == 404 && astray.body["warnings"][0].is_string(), "{astray:?}");
    Ok(())
}

pub async fn a_signer_is_certified_as_it_is_asked_for(vault: &VaultApi) -> Result<()> {
    let caller = with_root(vault).await?;
    let issuer = caller.get("pki/issuer/root-1/json").await?;
    let issuer = text(&issuer, "certificate")?;
    let body = signer()?;
    let signed = caller.post(SIGN, body.clone()).await?;
    let (pem, expiration) = (text(&signed, "certificate")?.to_owned(), signed.body["data"]["expiration"].clone());
    let mut pattern = envelope(
        "pki",
        json!({
            "ca_chain": [pem, issuer.trim_end()], "certificate": pem, "expiration": expiration,
            "issuing_ca": issuer.trim_end(), "serial_number": ANY,
        }),
    );
    pattern["warnings"] = json!([NO_AIA, NO_MORE_BELOW]);
    signed.is(200, pattern)?;
    ensure!(!pem.ends_with('\n'), "{pem:?}");
    let (of_issuer, subject) = look(issuer, |it| Ok((key_ids(it).0, it.subject().as_raw().to_vec())))?;
    let csr = Pem::iter_from_buffer(body["csr"].as_str().unwrap_or_default().as_bytes()).next().context("no csr")??;
    let key = rcgen::CertificateSigningRequestParams::from_der(&csr.contents.into())?.public_key;
    look(&pem, |certificate| {
        let (from, until) = ends(certificate);
        ensure!(until - from == 2161 * HOUR && expiration == json!(until), "{from} {until}");
        ensure!(names(certificate) == ["Istio", SIGNER], "{:?}", names(certificate));
        ensure!(certificate.issuer().as_raw() == subject);
        ensure!(key_ids(certificate).1 == of_issuer && of_issuer.is_some());
        let basic = certificate.basic_constraints()?.context("none")?;
        ensure!(basic.critical && basic.value.ca && basic.value.path_len_constraint == Some(0));
        let usage = certificate.key_usage()?.context("none")?;
        ensure!(usage.critical && usage.value.flags == 0b110_0000, "{:b}", usage.value.flags);
        ensure!(certificate.extended_key_usage()?.is_none() && certificate.name_constraints()?.is_none());
        ensure!(certificate.subject_alternative_name()?.is_none());
        use rcgen::PublicKeyData as _;
        ensure!(certificate.public_key().subject_public_key.data.as_ref() == key.der_bytes());
        Ok(())
    })
}

pub async fn what_is_not_said_of_a_signer_is_taken_from_elsewhere(vault: &VaultApi) -> Result<()> {
    let caller = with_root(vault).await?;
    // The name of the request, whatever it is, and with it that of a host.
    for body in [without(signer()?, "common_name"), but(signer()?, "common_name", "")] {
        let signed = caller.post(SIGN, but(body, "csr", csr("another.example")?)).await?;
        look(text(&signed, "certificate")?, |certificate| {
            ensure!(names(certificate) == ["Istio", "another.example"], "{:?}", names(certificate));
            let name = certificate.subject_alternative_name()?.context("none")?;
            ensure!(format!("{:?}", name.value).contains("another.example"), "{name:?}");
            Ok(())
        })?;
    }
    for (field, lifetime, path_length) in [("ttl", 769 * HOUR, Some(0)), ("max_path_length", 2161 * HOUR, None)] {
        let signed = caller.post(SIGN, without(signer()?, field)).await?;
        look(text(&signed, "certificate")?, |certificate| {
            let (from, until) = ends(certificate);
            ensure!(until - from == lifetime, "{field}: {from} {until}");
            let basic = certificate.basic_constraints()?.context("none")?;
            ensure!(basic.value.path_len_constraint == path_length, "{field}");
            Ok(())
        })?;
    }
    for (body, error) in [
        (without(signer()?, "csr"), "\"csr\" is empty"),
        (but(signer()?, "csr", "x"), "csr contains no data"),
        (but(signer()?, "format", "x"), "The \"format\" path parameter must be \"pem\", \"der\" or \"pem_bundle\""),
    ] {
        caller.post(SIGN, body).await?.refuses(400, error)?;
    }
    caller.get(SIGN).await?.refuses(405, "1 error occurred:\n\t* unsupported operation\n\n")?;
    Ok(())
}

pub async fn a_signer_that_would_outlive_its_issuer_is_cut_or_refused(vault: &VaultApi) -> Result<()> {
    let caller = mounted(vault).await?;
    ensure!(caller.post(GENERATE, but(root("root-1"), "ttl", "100h")).await?.status == 200);
    let signed = caller.post(SIGN, signer()?).await?;
    let cut = "the signed intermediary CA certificate's notAfter was truncated to the issuer's notAfter";
    ensure!(signed.body["warnings"] == json!([NO_AIA, NO_MORE_BELOW, cut]), "{signed:?}");
    let issuer = caller.get("pki/issuer/root-1/json").await?;
    let last = look(text(&issuer, "certificate")?, |it| Ok(ends(it).1))?;
    look(text(&signed, "certificate")?, |it| {
        ensure!(ends(it).1 == last);
        Ok(())
    })?;

    let strict = json!({ "leaf_not_after_behavior": "always_enforce_err" });
    let changed = caller.ask("PATCH", "pki/issuer/root-1", Some(strict)).await?;
    ensure!(changed.body["data"]["leaf_not_after_behavior"] == "always_enforce_err", "{changed:?}");
    let refused = caller.post(SIGN, signer()?).await?;
    let error = refused.body["errors"][0].as_str().unwrap_or_default();
    let start = "cannot satisfy request, as TTL would result in notAfter of ";
    let told = error.starts_with(start) && error.contains(" that is beyond the expiration of the CA certificate at ");
    ensure!(refused.status == 400 && told, "{refused:?}");
    ensure!(caller.post(SIGN, but(signer()?, "ttl", "99h")).await?.status == 200);

    let young = but(root("root-2"), "not_before_duration", "0s");
    ensure!(caller.post(GENERATE, young).await?.status == 200);
    let sign = "pki/issuer/root-2/sign-intermediate";
    caller.post(sign, signer()?).await?.refuses(400, "notBefore before signer's notBefore")?;
    ensure!(caller.post(sign, but(signer()?, "not_before_duration", "0s")).await?.status == 200);
    Ok(())
}

pub async fn a_mount_that_is_not_tuned_shortens_what_it_gives(vault: &VaultApi) -> Result<()> {
    let caller = Caller::root(vault);
    caller.post("sys/mounts/pki", json!({ "type": "pki" })).await?.done()?;
    let of_mount = |told: &Answered| told.body["data"]["config"]["max_lease_ttl"].clone();
    ensure!(of_mount(&caller.get("sys/mounts/pki").await?) == 0);
    ensure!(of_mount(&caller.get("sys/internal/ui/mounts/pki").await?) == 768 * HOUR);
    // A root of ten years that ends in 32 days, without a word.
    let made = caller.post(GENERATE, root("root-1")).await?;
    ensure!(made.status == 200 && made.body["warnings"] == json!([NO_AIA]), "{made:?}");
    look(text(&made, "certificate")?, |it| {
        ensure!(ends(it).1 - ends(it).0 == 769 * HOUR);
        Ok(())
    })?;
    let signed = caller.post(SIGN, signer()?).await?;
    let shorter = "TTL \"2160h0m0s\" is longer than permitted maxTTL \"768h0m0s\", so maxTTL is being used";
    ensure!(signed.body["warnings"].as_array().is_some_and(|it| it.contains(&json!(shorter))), "{signed:?}");

    let longer = json!({ "max_lease_ttl": "87600h" });
    caller.post("sys/mounts/pki/tune", longer.clone()).await?.done()?;
    ensure!(of_mount(&caller.get("sys/mounts/pki").await?) == 87_600 * HOUR);
    let made = caller.post(GENERATE, root("root-2")).await?;
    look(text(&made, "certificate")?, |it| {
        ensure!(ends(it).1 - ends(it).0 == 87_601 * HOUR);
        Ok(())
    })?;
    let error = "tune of path \"none/\" failed: no mount entry found";
    caller.post("sys/mounts/none/tune", longer).await?.refuses(400, error)?;

    // Who may sign sees the mount.
    let policy = "path \"pki/issuer/+/sign-intermediate\" { capabilities = [\"update\"] }";
    let told = Caller::who_may(vault, policy).await?.get("sys/internal/ui/mounts/pki").await?;
    ensure!(told.body["data"]["type"] == "pki" && of_mount(&told) == 87_600 * HOUR, "{told:?}");
    ensure!(told.body["data"]["options"] == json!({}) && told.body["data"]["path"] == "pki/", "{told:?}");
    Ok(())
}

pub async fn a_retired_issuer_certifies_nothing_until_it_is_brought_back(vault: &VaultApi) -> Result<()> {
    let caller = with_root(vault).await?;
    let told = caller.get("pki/issuer/root-1").await?;
    let (pem, id) = (text(&told, "certificate")?.to_owned(), text(&told, "issuer_id")?.to_owned());
    let shown = |usage: &str| {
        json!({
            "ca_chain": [pem], "certificate": pem, "crl_distribution_points": [], "delta_crl_distribution_points": [],
            "enable_aia_url_templating": false, "issuer_id": id, "issuer_name": "root-1", "issuing_certificates": [],
            "key_id": ANY, "leaf_not_after_behavior": "err", "manual_chain": null, "ocsp_servers": [],
            "revocation_signature_algorithm": "ECDSAWithSHA256", "revoked": false, "usage": usage,
        })
    };
    told.gives("pki", shown("crl-signing,issuing-certificates,ocsp-signing,read-only"))?;
    let usage = |usage: &str| Some(json!({ "usage": usage }));
    let retired = caller.ask("PATCH", "pki/issuer/root-1", usage("read-only,crl-signing")).await?;
    retired.gives("pki", shown("crl-signing,read-only"))?;
    let error = format!(
        "1 error occurred:\n\t* error fetching CA certificate: error while attempting to use issuer {id}: requested usage issuing-certificates for issuer [id:{id} / name:root-1] but only had usage crl-signing,read-only\n\n"
    );
    caller.post(SIGN, signer()?).await?.refuses(500, &error)?;
    let other = json!({ "certificate": pem });
    caller.post("pki/issuer/root-1/sign-self-issued", other).await?.refuses(500, &error)?;
    Caller::nobody(vault)
        .get("pki/issuer/root-1/json")
        .await?
        .gives("", json!({ "ca_chain": [pem], "certificate": pem, "issuer_id": id, "issuer_name": "root-1" }))?;
    let back = caller.ask("PATCH", "pki/issuer/root-1", usage("issuing-certificates,read-only")).await?;
    back.gives("pki", shown("issuing-certificates,read-only"))?;
    ensure!(caller.post(SIGN, signer()?).await?.status == 200);

    ensure!(caller.post(GENERATE, root("root-2")).await?.status == 200);
    let behaviors =
        "Unknown value for field `leaf_not_after_behavior`. Possible values are `err`, `truncate`, and `permit`.";
    let usages = "Unable to parse specified usages: [x] - valid values are crl-signing,issuing-certificates,ocsp-signing,read-only";
    for (field, value, error) in [
        ("issuer_name", "root-2", "issuer name already in use"),
        ("leaf_not_after_behavior", "x", behaviors),
        ("usage", "x", usages),
    ] {
        caller.ask("PATCH", "pki/issuer/root-1", Some(json!({ field: value }))).await?.refuses(400, error)?;
    }
    let renamed = caller.ask("PATCH", "pki/issuer/root-1", Some(json!({ "issuer_name": "root-3" }))).await?;
    ensure!(renamed.body["data"]["issuer_name"] == "root-3", "{renamed:?}");
    Ok(())
}

/// A policy for one name and one life.
const PINNED: &str = r#"
    path "pki/issuer/+/sign-intermediate" {
        capabilities        = ["update"]
        required_parameters = ["csr", "common_name", "ttl", "max_path_length"]
        allowed_parameters  = {
            "csr" = [], "common_name" = ["Istio Intermediate CA nas"], "organization" = ["Istio"], "ttl" = ["2160h"],
            "max_path_length" = ["0"], "not_before_duration" = ["1h"], "format" = ["pem"]
        }
        DENIED
    }"#;

pub async fn a_policy_pins_what_may_be_asked_for(vault: &VaultApi) -> Result<()> {
    with_root(vault).await?;
    let caller = Caller::who_may(vault, &PINNED.replace("DENIED", "")).await?;
    ensure!(caller.post(SIGN, signer()?).await?.status == 200);
    // What is not required may be left out.
    let least = without(without(without(signer()?, "organization"), "not_before_duration"), "format");
    ensure!(caller.post(SIGN, least).await?.status == 200);
    for body in [
        json!({}),
        without(signer()?, "common_name"),
        without(signer()?, "ttl"),
        without(signer()?, "max_path_length"),
        but(signer()?, "common_name", "Istio Intermediate CA homelab"),
        but(signer()?, "common_name", SIGNER.to_lowercase()),
        but(signer()?, "common_name", json!([SIGNER, "x"])),
        but(signer()?, "max_path_length", 0),
        but(signer()?, "ttl", 7_776_000),
        but(signer()?, "ttl", Value::Null),
        but(signer()?, "use_csr_values", "true"),
        but(without(signer()?, "common_name"), "COMMON_NAME", SIGNER),
        but(signer()?, "Max_Path_Length", "5"),
    ] {
        caller.post(SIGN, body).await?.refuses(403, DENIED)?;
    }
    // Of what is in the query of a write, nothing is read.
    let signed = caller.post(&format!("{SIGN}?use_csr_values=true&ttl=9000h"), signer()?).await?;
    look(text(&signed, "certificate")?, |it| {
        ensure!(ends(it).1 - ends(it).0 == 2161 * HOUR);
        Ok(())
    })?;
    Ok(())
}

pub async fn an_empty_text_is_among_any_values_unless_it_is_denied(vault: &VaultApi) -> Result<()> {
    with_root(vault).await?;
    let nameless = but(but(signer()?, "common_name", ""), "csr", csr("Istio Intermediate CA homelab")?);
    let pinned = Caller::who_may(vault, &PINNED.replace("DENIED", "")).await?;
    let signed = pinned.post(SIGN, nameless.clone()).await?;
    look(text(&signed, "certificate")?, |it| {
        ensure!(names(it)[1] == "Istio Intermediate CA homelab");
        Ok(())
    })?;
    // Every text is taken for a list.
    let twice = format!("{SIGNER},{SIGNER}");
    ensure!(pinned.post(SIGN, but(signer()?, "common_name", twice)).await?.status == 200);

    let denied = r#"denied_parameters = { "common_name" = [""], "ttl" = [""] }"#;
    let pinned = Caller::who_may(vault, &PINNED.replace("DENIED", denied)).await?;
    ensure!(pinned.post(SIGN, signer()?).await?.status == 200);
    for body in [nameless, but(signer()?, "common_name", " "), but(signer()?, "ttl", "")] {
        pinned.post(SIGN, body).await?.refuses(403, DENIED)?;
    }
    Ok(())
}

pub async fn constraints_of_two_stanzas_for_one_path_add_up(vault: &VaultApi) -> Result<()> {
    with_root(vault).await?;
    let stanza =
        |constraints: &str| format!("path \"{SIGN}\" {{\n  capabilities = [\"update\"]\n  {constraints}\n}}\n");
    let one = stanza(r#"allowed_parameters = { "csr" = [], "common_name" = ["a a"] }"#);
    let other =
        stanza("allowed_parameters = { \"common_name\" = [\"b b\"] }\n  required_parameters = [\"common_name\"]");
    let both = Caller::who_may(vault, &format!("{one}{other}{}", stanza(""))).await?;
    let csr = csr("x")?;
    for (body, status) in [
        (json!({ "csr": csr, "common_name": "a a" }), 200),
        (json!({ "csr": csr, "common_name": "b b" }), 200),
        (json!({ "csr": csr, "common_name": "c c" }), 403),
        (json!({ "csr": csr }), 403),
    ] {
        let answered = both.post(SIGN, body).await?;
        ensure!(answered.status == status, "{answered:?}");
    }
    for wrong in
        ["allowed_parameters = [\"x\"]", "allowed_parameters = { \"x\" = \"y\" }", "required_parameters = \"x\""]
    {
        let answered = Caller::root(vault).post("sys/policies/acl/bad", json!({ "policy": stanza(wrong) })).await?;
        let error = answered.body["errors"][0].as_str().unwrap_or_default();
        ensure!(answered.status == 400 && error.starts_with("failed to parse policy: "), "{answered:?}");
    }
    Ok(())
}

pub async fn a_policy_lets_one_thing_of_an_issuer_be_changed(vault: &VaultApi) -> Result<()> {
    with_root(vault).await?;
    let policy = r#"path "pki/issuer/root-1" {
        capabilities        = ["patch"]
        required_parameters = ["leaf_not_after_behavior"]
        allowed_parameters  = { "leaf_not_after_behavior" = ["always_enforce_err"] }
    }"#;
    let caller = Caller::who_may(vault, policy).await?;
    let strict = json!({ "leaf_not_after_behavior": "always_enforce_err" });
    let changed = caller.ask("PATCH", "pki/issuer/root-1", Some(strict.clone())).await?;
    ensure!(changed.status == 200, "{changed:?}");
    for body in [json!({}), json!({ "leaf_not_after_behavior": "permit" }), but(strict.clone(), "usage", "read-only")] {
        caller.ask("PATCH", "pki/issuer/root-1", Some(body)).await?.refuses(403, DENIED)?;
    }
    caller.post("pki/issuer/root-1", strict).await?.refuses(403, DENIED)?;
    caller.get("pki/issuer/root-1").await?.refuses(403, DENIED)?;
    Ok(())
}

/// A root of somebody else's, and its key: its key identifier is nothing that can be computed.
fn foreign() -> Result<(String, String)> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "cluster.local");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.key_identifier_method = KeyIdMethod::PreSpecified(b"of my own".to_vec());
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

pub async fn a_root_is_brought_along_with_its_key(vault: &VaultApi) -> Result<()> {
    let caller = mounted(vault).await?;
    let (certificate, key) = foreign()?;
    let import = "pki/issuers/import/bundle";
    let bundle = json!({ "pem_bundle": format!("{certificate}{key}") });
    let imported = caller.post(import, bundle.clone()).await?;
    let data = imported.body["data"].clone();
    let (issuer, key_id) = (&data["imported_issuers"][0], &data["imported_keys"][0]);
    let id = issuer.as_str().context("no issuer")?;
    let told = |issuers: [Value; 2], keys: [Value; 2]| {
        let mut pattern = envelope(
            "pki",
            json!({
                "existing_issuers": issuers[0], "existing_keys": keys[0], "imported_issuers": issuers[1],
                "imported_keys": keys[1], "mapping": { id: key_id },
            }),
        );
        pattern["warnings"] = json!([NO_AIA]);
        pattern
    };
    imported.is(200, told([Value::Null, json!([issuer])], [Value::Null, json!([key_id])]))?;
    // Again, and nothing is new.
    let again = caller.post(import, bundle).await?;
    again.is(200, told([json!([issuer]), Value::Null], [json!([key_id]), Value::Null]))?;
    let alone = caller.post(import, json!({ "pem_bundle": certificate })).await?;
    alone.is(200, told([json!([issuer]), Value::Null], [Value::Null, Value::Null]))?;

    let named = caller.ask("PATCH", &format!("pki/issuer/{id}"), Some(json!({ "issuer_name": "root-1" }))).await?;
    ensure!(named.body["data"]["issuer_name"] == "root-1", "{named:?}");
    let kept = caller.get("pki/issuer/root-1/json").await?;
    ensure!(text(&kept, "certificate")? == certificate, "{kept:?}");
    let signed = caller.post(SIGN, signer()?).await?;
    look(text(&signed, "certificate")?, |it| {
        ensure!(key_ids(it).1.as_deref() == Some(b"of my own"), "{:?}", key_ids(it));
        Ok(())
    })?;
    let short = "provided data for import was too short; perhaps a path was passed to the API rather than the contents of a PEM file";
    for (bundle, error) in [
        (json!({}), "'pem_bundle' and 'certificate' parameters were empty"),
        (json!({ "pem_bundle": "root-cert.pem" }), short),
        (json!({ "pem_bundle": "x".repeat(200) }), "provided PEM block contained no data"),
    ] {
        caller.post(import, bundle).await?.refuses(400, error)?;
    }
    Ok(())
}

pub async fn a_cross_keeps_the_other_roots_name_key_and_ends(vault: &VaultApi) -> Result<()> {
    let caller = with_root(vault).await?;
    let of_old = caller.get("pki/issuer/root-1/json").await?;
    let made = caller.post(GENERATE, but(root("root-2"), "common_name", "Istio Root CA 2")).await?;
    let (old, new) = (text(&of_old, "certificate")?, text(&made, "certificate")?);
    let path = "pki/issuer/root-1/sign-self-issued";
    let crossed = caller.post(path, json!({ "certificate": new })).await?;
    let data = json!({ "certificate": ANY, "issuing_ca": old.trim_end() });
    let crossed = crossed.gives("pki", data)?;
    let facts = |it: &X509Certificate<'_>| {
        let key = it.public_key().raw.to_vec();
        Ok((it.subject().as_raw().to_vec(), key, it.raw_serial().to_vec(), ends(it), key_ids(it).0))
    };
    let (of_cross, of_new) = (look(text(&crossed, "certificate")?, facts)?, look(new, facts)?);
    ensure!(of_cross == of_new, "{of_cross:?} {of_new:?}");
    let (of_issuer, subject) = look(old, |it| Ok((key_ids(it).0, it.subject().as_raw().to_vec())))?;
    look(text(&crossed, "certificate")?, |it| {
        ensure!(it.issuer().as_raw() == subject && key_ids(it).1 == of_issuer);
        let basic = it.basic_constraints()?.context("none")?;
        ensure!(basic.value.ca && basic.value.path_len_constraint.is_none());
        Ok(())
    })?;
    let signed = caller.post(SIGN, signer()?).await?;
    for (certificate, error) in [
        (text(&signed, "certificate")?, "given certificate is not self-issued"),
        ("x", "error parsing certificate: unable to parse certificate: invalid PEM"),
    ] {
        caller.post(path, json!({ "certificate": certificate })).await?.refuses(400, error)?;
    }
    // Less than the whole right is none: it is a path of its own.
    let pinned = Caller::who_may(vault, &PINNED.replace("DENIED", "")).await?;
    pinned.post(path, json!({ "certificate": new })).await?.refuses(403, DENIED)?;
    Ok(())
}

pub async fn an_issuer_without_its_key_certifies_nothing_until_the_key_comes(vault: &VaultApi) -> Result<()> {
    let caller = mounted(vault).await?;
    let (certificate, key) = foreign()?;
    let imported = caller.post("pki/issuers/import/bundle", json!({ "pem_bundle": certificate })).await?;
    let id = imported.body["data"]["imported_issuers"][0].as_str().context("no issuer")?.to_owned();
    ensure!(imported.body["data"]["mapping"] == json!({ id.as_str(): "" }), "{imported:?}");
    let sign = format!("pki/issuer/{id}/sign-intermediate");
    let error = format!(
        "1 error occurred:\n\t* could not fetch the CA certificate (was one set?): unable to fetch corresponding key for issuer {id}; unable to use this issuer for signing\n\n"
    );
    caller.post(&sign, signer()?).await?.refuses(500, &error)?;
    let bundle = json!({ "pem_bundle": format!("{certificate}{key}") });
    let imported = caller.post("pki/issuers/import/bundle", bundle).await?;
    let key_id = &imported.body["data"]["imported_keys"][0];
    ensure!(key_id.is_string() && imported.body["data"]["mapping"] == json!({ id.as_str(): key_id }), "{imported:?}");
    ensure!(caller.post(&sign, signer()?).await?.status == 200);
    Ok(())
}
