// AWS-LC's own functions behind a few of ours. What is returned in `out` is freed by judge_free.
#include <limits.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/bytestring.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

void judge_free(uint8_t *bytes) { OPENSSL_free(bytes); }

EVP_PKEY *judge_key(const uint8_t *pkcs8, size_t len) {
    CBS bytes;
    CBS_init(&bytes, pkcs8, len);
    return EVP_parse_private_key(&bytes);
}

void judge_key_free(EVP_PKEY *key) { EVP_PKEY_free(key); }

// 0: of an elliptic curve, 1: RSA, 2: Ed25519.
int judge_key_kind(const EVP_PKEY *key) {
    switch (EVP_PKEY_id(key)) {
    case EVP_PKEY_RSA:
    case EVP_PKEY_RSA_PSS:
        return 1;
    case EVP_PKEY_ED25519:
        return 2;
    default:
        return 0;
    }
}

// 0: SubjectPublicKeyInfo, 1: PKCS#1 or SEC1, 2: PKCS#8.
size_t judge_key_write(const EVP_PKEY *key, int form, uint8_t **out) {
    size_t len = 0;
    CBB builder;
    int written;
    *out = NULL;
    switch (form) {
    case 0:
        written = i2d_PUBKEY(key, out);
        return written > 0 ? (size_t)written : 0;
    case 1:
        written = i2d_PrivateKey(key, out);
        return written > 0 ? (size_t)written : 0;
    default:
        if (!CBB_init(&builder, 256) || !EVP_marshal_private_key(&builder, key) || !CBB_finish(&builder, out, &len)) {
            CBB_cleanup(&builder);
            return 0;
        }
        return len;
    }
}

// `digest`: 0 of the key's own kind, else MD5, SHA-1, SHA-256, SHA-384, SHA-512.
size_t judge_sign(EVP_PKEY *key, int digest, const uint8_t *message, size_t len, uint8_t **out) {
    const EVP_MD *digests[] = {NULL, EVP_md5(), EVP_sha1(), EVP_sha256(), EVP_sha384(), EVP_sha512()};
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    size_t size = 0;
    int ok = EVP_DigestSignInit(context, NULL, digests[digest], NULL, key) &&
             EVP_DigestSign(context, NULL, &size, message, len) && (*out = OPENSSL_malloc(size)) != NULL &&
             EVP_DigestSign(context, *out, &size, message, len);
    EVP_MD_CTX_free(context);
    return ok ? size : 0;
}

// All that is in a PEM file, as Envoy loads trusted CAs and revocation lists. 0: it cannot be read.
static int add(X509_STORE *store, const uint8_t *pem, size_t len, int *certificates, int *lists) {
    BIO *bio = BIO_new_mem_buf(pem, (int)len);
    STACK_OF(X509_INFO) *all = PEM_X509_INFO_read_bio(bio, NULL, NULL, NULL);
    BIO_free(bio);
    if (all == NULL) {
        return 0;
    }
    for (size_t i = 0; i < sk_X509_INFO_num(all); i++) {
        X509_INFO *one = sk_X509_INFO_value(all, i);
        if (one->x509 != NULL) {
            X509_STORE_add_cert(store, one->x509);
            ++*certificates;
        }
        if (one->crl != NULL) {
            X509_STORE_add_crl(store, one->crl);
            ++*lists;
        }
    }
    sk_X509_INFO_pop_free(all, X509_INFO_free);
    return 1;
}

// As Envoy loads a chain: the leaf, then certificates up to the end of the file.
static X509 *read_chain(const uint8_t *pem, size_t len, STACK_OF(X509) *rest) {
    BIO *bio = BIO_new_mem_buf(pem, (int)len);
    ERR_clear_error();
    X509 *leaf = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL);
    X509 *next;
    while (leaf != NULL && (next = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
        sk_X509_push(rest, next);
    }
    uint32_t error = ERR_peek_last_error();
    if (ERR_GET_LIB(error) != ERR_LIB_PEM || ERR_GET_REASON(error) != PEM_R_NO_START_LINE) {
        X509_free(leaf);
        leaf = NULL;
    }
    BIO_free(bio);
    return leaf;
}

// Verifies as Envoy does: NULL if it does, else why not. `purpose` is ssl_client or ssl_server.
const char *judge_verify(const uint8_t *roots, size_t roots_len, const uint8_t *crl, size_t crl_len,
                         const uint8_t *chain, size_t chain_len, const char *purpose) {
    const char *refusal = NULL;
    int certificates = 0, lists = 0;
    unsigned long flags = X509_V_FLAG_PARTIAL_CHAIN;
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *context = X509_STORE_CTX_new();
    STACK_OF(X509) *rest = sk_X509_new_null();
    X509 *leaf = read_chain(chain, chain_len, rest);
    if (leaf == NULL) {
        refusal = "the chain cannot be read to its end";
    } else if (!add(store, roots, roots_len, &certificates, &lists) || certificates == 0) {
        refusal = "the trusted CAs cannot be read";
    } else if (crl_len > 0 && (!add(store, crl, crl_len, &certificates, &lists) || lists == 0)) {
        refusal = "the revocation lists cannot be read";
    } else {
        if (lists > 0) {
            flags |= X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL;
        }
        X509_STORE_set_flags(store, flags);
        if (!X509_STORE_CTX_init(context, store, leaf, rest) || !X509_STORE_CTX_set_default(context, purpose)) {
            refusal = "no context";
        } else if (X509_verify_cert(context) != 1) {
            refusal = X509_verify_cert_error_string(X509_STORE_CTX_get_error(context));
        }
    }
    X509_free(leaf);
    X509_STORE_CTX_free(context);
    sk_X509_pop_free(rest, X509_free);
    X509_STORE_free(store);
    return refusal;
}
