//! AWS-LC's C functions: keys of any kind, and verifying as Envoy does with BoringSSL, of which AWS-LC is a fork.
#![allow(unsafe_code, reason = "the C functions have no safe form that takes what is wrong")]

use std::ffi::{CStr, c_int, c_long, c_void};
use std::ptr::{null, null_mut};

use anyhow::{Result, bail, ensure};
use aws_lc_sys::*;

use crate::make::Digest;

/// A private key of any kind.
pub struct Key(*mut EVP_PKEY);

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: made by EVP_parse_private_key, and freed once.
        unsafe { EVP_PKEY_free(self.0) }
    }
}

impl Key {
    /// From PKCS#8.
    pub(crate) fn parse(pkcs8: &[u8]) -> Result<Self> {
        // SAFETY: the bytes outlive the call, and what it returns is checked.
        let key = unsafe {
            let mut bytes = CBS { data: null(), len: 0 };
            CBS_init(&raw mut bytes, pkcs8.as_ptr(), pkcs8.len());
            EVP_parse_private_key(&raw mut bytes)
        };
        ensure!(!key.is_null(), "a key that AWS-LC does not read");
        Ok(Self(key))
    }

    pub(crate) fn is_rsa(&self) -> bool {
        // SAFETY: the key is there.
        let id = unsafe { EVP_PKEY_id(self.0) };
        id == EVP_PKEY_RSA || id == EVP_PKEY_RSA_PSS
    }

    pub(crate) fn is_ed25519(&self) -> bool {
        // SAFETY: the key is there.
        unsafe { EVP_PKEY_id(self.0) == EVP_PKEY_ED25519 }
    }

    /// SubjectPublicKeyInfo.
    pub(crate) fn public(&self) -> Vec<u8> {
        // SAFETY: the key is there, and the buffer is AWS-LC's own.
        unsafe { taken(|out| i2d_PUBKEY(self.0, out)) }
    }

    /// PKCS#1 or SEC1.
    pub(crate) fn traditional(&self) -> Vec<u8> {
        // SAFETY: the key is there, and the buffer is AWS-LC's own.
        unsafe { taken(|out| i2d_PrivateKey(self.0, out)) }
    }

    pub(crate) fn pkcs8(&self) -> Vec<u8> {
        // SAFETY: the builder is used up by CBB_finish, whose buffer is copied and freed.
        unsafe {
            let mut builder: CBB = std::mem::zeroed();
            let mut bytes = null_mut();
            let mut len = 0;
            CBB_init(&raw mut builder, 256);
            EVP_marshal_private_key(&raw mut builder, self.0);
            CBB_finish(&raw mut builder, &raw mut bytes, &raw mut len);
            copied(bytes, len)
        }
    }

    pub(crate) fn sign(&self, digest: Digest, message: &[u8]) -> Vec<u8> {
        // SAFETY: the context is freed, and the signature has the room that was asked for.
        unsafe {
            let digest = match digest {
                Digest::None => null(),
                Digest::Md5 => EVP_md5(),
                Digest::Sha1 => EVP_sha1(),
                Digest::Sha256 => EVP_sha256(),
                Digest::Sha384 => EVP_sha384(),
                Digest::Sha512 => EVP_sha512(),
            };
            let context = EVP_MD_CTX_new();
            EVP_DigestSignInit(context, null_mut(), digest, null_mut(), self.0);
            let mut len = 0;
            EVP_DigestSign(context, null_mut(), &raw mut len, message.as_ptr(), message.len());
            let mut signature = vec![0; len];
            let done =
                EVP_DigestSign(context, signature.as_mut_ptr(), &raw mut len, message.as_ptr(), message.len());
            EVP_MD_CTX_free(context);
            signature.truncate(if done == 1 { len } else { 0 });
            signature
        }
    }
}

/// What an `i2d` function writes.
unsafe fn taken(write: impl FnOnce(*mut *mut u8) -> c_int) -> Vec<u8> {
    let mut bytes = null_mut();
    let len = write(&raw mut bytes);
    // SAFETY: the caller's function allocated so many bytes.
    unsafe { copied(bytes, usize::try_from(len).unwrap_or(0)) }
}

unsafe fn copied(bytes: *mut u8, len: usize) -> Vec<u8> {
    if bytes.is_null() {
        return Vec::new();
    }
    // SAFETY: AWS-LC allocated `len` bytes there, and they are freed once.
    unsafe {
        let copy = std::slice::from_raw_parts(bytes, len).to_vec();
        OPENSSL_free(bytes.cast());
        copy
    }
}

/// Which side of a connection a certificate is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A client shows it.
    Client,
    /// A server shows it.
    Server,
}

/// Verifies as Envoy does: `roots` and `crl` are its validation context, `chain` is what the other side shows, the leaf
/// first. Partial chains are taken.
pub fn verify(roots: &[u8], crl: Option<&[u8]>, chain: &[u8], purpose: Purpose) -> Result<()> {
    let store = Store::new()?;
    let (certificates, lists) = store.add(roots)?;
    ensure!(certificates > 0, "no trusted CA");
    let mut flags = X509_V_FLAG_PARTIAL_CHAIN;
    if let Some(crl) = crl.filter(|crl| !crl.is_empty()) {
        let (_, lists) = store.add(crl)?;
        ensure!(lists > 0, "no revocation list");
    }
    if lists > 0 || crl.is_some_and(|crl| !crl.is_empty()) {
        flags |= X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL;
    }
    let chain = Chain::read(chain)?;
    // SAFETY: the store and the chain outlive the context, which is freed.
    unsafe {
        X509_STORE_set_flags(store.0, flags.unsigned_abs().into());
        let context = X509_STORE_CTX_new();
        let name = match purpose {
            Purpose::Client => c"ssl_client",
            Purpose::Server => c"ssl_server",
        };
        let ready = X509_STORE_CTX_init(context, store.0, chain.leaf, chain.stack.cast()) == 1
            && X509_STORE_CTX_set_default(context, name.as_ptr()) == 1;
        let ok = ready && X509_verify_cert(context) == 1;
        let error = X509_STORE_CTX_get_error(context);
        X509_STORE_CTX_free(context);
        if !ok {
            bail!("{}", CStr::from_ptr(X509_verify_cert_error_string(c_long::from(error))).to_string_lossy());
        }
    }
    Ok(())
}

struct Store(*mut X509_STORE);

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: made by X509_STORE_new, and freed once.
        unsafe { X509_STORE_free(self.0) }
    }
}

impl Store {
    fn new() -> Result<Self> {
        // SAFETY: what it returns is checked.
        let store = unsafe { X509_STORE_new() };
        ensure!(!store.is_null(), "no memory");
        Ok(Self(store))
    }

    /// All that is in a PEM file. How many certificates and revocation lists those were.
    fn add(&self, pem: &[u8]) -> Result<(usize, usize)> {
        // SAFETY: the BIO reads bytes that outlive it; the stack and what is in it is freed.
        unsafe {
            ERR_clear_error();
            let bio = Bio::new(pem)?;
            let stack = PEM_X509_INFO_read_bio(bio.0, null_mut(), None, null_mut()).cast::<OPENSSL_STACK>();
            ensure!(!stack.is_null(), "cannot be read as PEM");
            let mut added = (0, 0);
            for index in 0..OPENSSL_sk_num(stack) {
                let info = OPENSSL_sk_value(stack, index).cast::<X509_info_st>();
                if !(*info).x509.is_null() {
                    X509_STORE_add_cert(self.0, (*info).x509);
                    added.0 += 1;
                }
                if !(*info).crl.is_null() {
                    X509_STORE_add_crl(self.0, (*info).crl);
                    added.1 += 1;
                }
                X509_INFO_free(info.cast());
            }
            OPENSSL_sk_free(stack);
            Ok(added)
        }
    }
}

struct Bio(*mut BIO);

impl Drop for Bio {
    fn drop(&mut self) {
        // SAFETY: made by BIO_new_mem_buf, and freed once.
        unsafe {
            BIO_free(self.0);
        }
    }
}

impl Bio {
    fn new(bytes: &[u8]) -> Result<Self> {
        // SAFETY: the caller keeps the bytes as long as this.
        let bio = unsafe { BIO_new_mem_buf(bytes.as_ptr().cast(), bytes.len().try_into()?) };
        ensure!(!bio.is_null(), "no memory");
        Ok(Self(bio))
    }
}

/// A certificate and those that are shown after it.
struct Chain {
    leaf: *mut X509,
    stack: *mut OPENSSL_STACK,
}

impl Drop for Chain {
    fn drop(&mut self) {
        // SAFETY: all of it was made by `read`, and is freed once.
        unsafe {
            X509_free(self.leaf);
            for index in 0..OPENSSL_sk_num(self.stack) {
                X509_free(OPENSSL_sk_value(self.stack, index).cast());
            }
            OPENSSL_sk_free(self.stack);
        }
    }
}

impl Chain {
    /// As Envoy loads a certificate chain: up to the end of the file, and nothing broken in it.
    fn read(pem: &[u8]) -> Result<Self> {
        // SAFETY: the BIO reads bytes that outlive it, and the certificates become the chain's.
        unsafe {
            ERR_clear_error();
            let bio = Bio::new(pem)?;
            let leaf = PEM_read_bio_X509_AUX(bio.0, null_mut(), None, null_mut());
            ensure!(!leaf.is_null(), "the leaf cannot be read");
            let chain = Self { leaf, stack: OPENSSL_sk_new_null() };
            loop {
                let next = PEM_read_bio_X509(bio.0, null_mut(), None, null_mut());
                if next.is_null() {
                    break;
                }
                OPENSSL_sk_push(chain.stack, next.cast::<c_void>());
            }
            // Library and reason, as ERR_GET_LIB and ERR_GET_REASON have them.
            let error = ERR_peek_last_error();
            let end = (error >> 24 & 0xff, error & 0xfff);
            ensure!(end == (ERR_LIB_PEM.unsigned_abs(), PEM_R_NO_START_LINE.unsigned_abs()), "broken chain");
            Ok(chain)
        }
    }
}
