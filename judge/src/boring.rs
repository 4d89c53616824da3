//! AWS-LC, a fork of BoringSSL, which Envoy verifies with: keys of any kind, and verifying as Envoy does.
#![allow(unsafe_code, reason = "of all its functions only those in C take what is wrong")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;

use anyhow::{Result, bail, ensure};

use crate::make::Digest;

// Its objects are linked, though nothing of it is called from Rust.
use aws_lc_sys as _;

// In boring.c.
unsafe extern "C" {
    fn judge_free(bytes: *mut u8);
    fn judge_key(pkcs8: *const u8, len: usize) -> *mut c_void;
    fn judge_key_free(key: *mut c_void);
    fn judge_key_kind(key: *const c_void) -> c_int;
    fn judge_key_write(key: *const c_void, form: c_int, out: *mut *mut u8) -> usize;
    fn judge_sign(key: *mut c_void, digest: c_int, message: *const u8, len: usize, out: *mut *mut u8) -> usize;
    fn judge_verify(
        roots: *const u8,
        roots_len: usize,
        crl: *const u8,
        crl_len: usize,
        chain: *const u8,
        chain_len: usize,
        purpose: *const c_char,
    ) -> *const c_char;
}

/// A private key of any kind.
pub struct Key(*mut c_void);

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: made by judge_key, and freed once.
        unsafe { judge_key_free(self.0) }
    }
}

impl Key {
    /// From PKCS#8.
    pub(crate) fn parse(pkcs8: &[u8]) -> Result<Self> {
        // SAFETY: the bytes outlive the call, and what it returns is checked.
        let key = unsafe { judge_key(pkcs8.as_ptr(), pkcs8.len()) };
        ensure!(!key.is_null(), "a key that AWS-LC does not read");
        Ok(Self(key))
    }

    pub(crate) fn is_rsa(&self) -> bool {
        // SAFETY: the key is there.
        unsafe { judge_key_kind(self.0) == 1 }
    }

    pub(crate) fn is_ed25519(&self) -> bool {
        // SAFETY: the key is there.
        unsafe { judge_key_kind(self.0) == 2 }
    }

    /// SubjectPublicKeyInfo.
    pub(crate) fn public(&self) -> Vec<u8> {
        self.write(0)
    }

    /// PKCS#1 or SEC1.
    pub(crate) fn traditional(&self) -> Vec<u8> {
        self.write(1)
    }

    pub(crate) fn pkcs8(&self) -> Vec<u8> {
        self.write(2)
    }

    fn write(&self, form: c_int) -> Vec<u8> {
        // SAFETY: the key is there, and what is written is as long as is said.
        unsafe { taken(|out| judge_key_write(self.0, form, out)) }
    }

    /// Nothing, where such a key does not sign so.
    pub(crate) fn sign(&self, digest: Digest, message: &[u8]) -> Vec<u8> {
        // SAFETY: key and message are there, and what is written is as long as is said.
        unsafe { taken(|out| judge_sign(self.0, digest as c_int, message.as_ptr(), message.len(), out)) }
    }
}

unsafe fn taken(write: impl FnOnce(*mut *mut u8) -> usize) -> Vec<u8> {
    let mut bytes = null_mut();
    let len = write(&raw mut bytes);
    if bytes.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller's function allocated so many bytes at least.
    unsafe {
        let copy = std::slice::from_raw_parts(bytes, len).to_vec();
        judge_free(bytes);
        copy
    }
}

/// Which side of a connection a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A client shows it.
    Client,
    /// A server shows it.
    Server,
}

/// Verifies as Envoy does: `roots` and `crl` are its validation context, `chain` is what the other side shows, the leaf
/// first. Partial chains are taken.
pub fn verify(roots: &[u8], crl: Option<&[u8]>, chain: &[u8], purpose: Purpose) -> Result<()> {
    let crl = crl.unwrap_or_default();
    let purpose = match purpose {
        Purpose::Client => c"ssl_client",
        Purpose::Server => c"ssl_server",
    };
    // SAFETY: all of it outlives the call, and the text that it returns is static.
    unsafe {
        let refusal = judge_verify(
            roots.as_ptr(),
            roots.len(),
            crl.as_ptr(),
            crl.len(),
            chain.as_ptr(),
            chain.len(),
            purpose.as_ptr(),
        );
        if !refusal.is_null() {
            bail!("{}", CStr::from_ptr(refusal).to_string_lossy());
        }
    }
    Ok(())
}
