//! CAs for tests, as small as can be and made anew in each run. Those that rcgen cannot make are here
//! as PEM, made by openssl; nobody has their keys.

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};

use super::bundle::{Beside, Bundle, KeyPem};
use super::der;
use super::issue::set_validity;

/// 2027-01-01T00:00:00Z, the time of all tests.
pub const NOW: i64 = 1_798_761_600;
pub const HOUR: i64 = 3600;
pub const YEARS: i64 = 3650 * 24 * HOUR;

pub fn now() -> Timestamp {
    at(NOW)
}

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A certificate and its key.
pub struct Ca {
    pub params: CertificateParams,
    pub key: KeyPair,
    pub certificate: Certificate,
}

/// What every CA here has, unless a test says otherwise.
pub fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    set_validity(&mut params, NOW - HOUR, NOW + YEARS);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.use_authority_key_identifier_extension = true;
    params
}

impl Ca {
    /// A self-signed root, P-256.
    pub fn root(name: &str) -> Self {
        Self::root_but(name, |_| ())
    }

    /// The same with other parameters.
    pub fn root_but(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        Self::root_with(KeyPair::generate().unwrap(), name, change)
    }

    /// The same with another key, too.
    pub fn root_with(key: KeyPair, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = params(name);
        change(&mut params);
        let certificate = params.self_signed(&key).unwrap();
        Self { params, key, certificate }
    }

    /// A CA beneath this one.
    pub fn issue(&self, name: &str) -> Self {
        self.issue_but(name, |_| ())
    }

    /// The same with other parameters.
    pub fn issue_but(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = params(name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = self.sign(&params, &key);
        Self { params, key, certificate }
    }

    /// Another certificate for the name and key of `other`, by this one.
    pub fn cross_sign(&self, other: &Self) -> Self {
        let key = KeyPair::try_from(other.key.serialized_der()).unwrap();
        let certificate = self.sign(&other.params, &key);
        Self { params: other.params.clone(), key, certificate }
    }

    /// What Vault's PKI engine makes of a request: only its key counts.
    pub fn certify(&self, request: &str, name: &str, change: impl FnOnce(&mut CertificateParams)) -> String {
        let request = CertificateSigningRequestParams::from_pem(request).unwrap();
        let mut params = params(name);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Istio");
        params.distinguished_name.push(DnType::CommonName, name);
        set_validity(&mut params, NOW - HOUR, NOW + 90 * 24 * HOUR);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        change(&mut params);
        self.sign(&params, &request.public_key).pem().replace("\r\n", "\n")
    }

    pub fn sign(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Certificate {
        params.signed_by(key, &Issuer::from_params(&self.params, &self.key)).unwrap()
    }

    /// The bundle of a root that signs directly.
    pub fn bundle(&self) -> Bundle {
        bundle(&[self], &[self], self)
    }

    /// The bundle of a CA right beneath `root`.
    pub fn bundle_under(&self, root: &Self) -> Bundle {
        bundle(&[root], &[self], self)
    }
}

/// A bundle that `ca` signs for.
pub fn bundle(roots: &[&Ca], chain: &[&Ca], ca: &Ca) -> Bundle {
    Bundle {
        root_cert: pems(roots),
        cert_chain: pems(chain),
        ca_cert: ca.certificate.pem().into_bytes(),
        ca_key: KeyPem::new(ca.key.serialize_pem().into_bytes()),
        beside: Beside::default(),
    }
}

fn pems(cas: &[&Ca]) -> Vec<u8> {
    cas.iter().map(|ca| ca.certificate.pem()).collect::<String>().into_bytes()
}

/// A P-256 root's DER, with other parts of what it signs.
pub fn signed_anew(root: &Ca, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
    signed_anew_by(root, root, change)
}

/// The same of a CA that another one signs.
pub fn signed_anew_by(issuer: &Ca, ca: &Ca, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
    use rcgen::SigningKey as _;
    let whole = der::only(ca.certificate.der(), der::SEQUENCE).unwrap();
    let mut reader = der::Reader::new(der::Reader::new(whole).take(der::SEQUENCE).unwrap());
    let mut parts: Vec<Vec<u8>> =
        std::iter::from_fn(|| reader.any()).map(|part| der::element(part.tag, &[part.value])).collect();
    change(&mut parts);
    let algorithm = parts.iter().find(|part| part[0] == der::SEQUENCE).unwrap().clone();
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let signed = der::element(der::SEQUENCE, &parts);
    let signature = issuer.key.sign(&signed).unwrap();
    der::element(der::SEQUENCE, &[&signed, &algorithm, &der::element(der::BIT_STRING, &[&[0], &signature])])
}

/// A PEM block with lines of any width.
pub fn pem(label: &str, der: &[u8], width: usize, newline: &str) -> String {
    let base64 = base64(der);
    let lines: Vec<&str> = base64.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----{newline}{}{newline}-----END {label}-----{newline}", lines.join(newline))
}

pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let digit = |index: usize| char::from(DIGITS[(word >> (18 - 6 * index) & 63) as usize]);
        text.extend((0..4).map(|index| if index <= chunk.len() { digit(index) } else { '=' }));
    }
    text
}

/// What a key would look like in some output: PEM, base64 of it and of its DER, hexadecimal, lists of
/// decimals; in pieces that no other text has by chance.
pub fn traces(key: &KeyPair) -> Vec<String> {
    let (pem, der) = (key.serialize_pem(), key.serialized_der());
    let hex: String = der.iter().map(|byte| format!("{byte:02x}")).collect();
    let texts = [base64(der), base64(pem.as_bytes()), hex];
    let chunks = texts.iter().flat_map(|text| text.as_bytes().chunks_exact(16));
    let decimals = [der, pem.as_bytes()].into_iter().flat_map(|bytes| bytes.chunks_exact(5));
    pem.lines()
        .map(str::to_owned)
        .chain(chunks.map(|chunk| String::from_utf8(chunk.to_vec()).unwrap()))
        .chain(decimals.map(|bytes| format!("{bytes:?}").trim_matches(['[', ']']).to_owned()))
        .collect()
}

#[test]
fn traces_find_a_key_in_whatever_shape() {
    let key = KeyPair::generate().unwrap();
    let (pem, der) = (key.serialize_pem(), key.serialized_der());
    let shapes = [pem.clone(), base64(der), base64(pem.as_bytes()), format!("{der:?}")];
    for shape in shapes.into_iter().chain([format!("{:?}", pem.as_bytes())]) {
        assert!(traces(&key).iter().any(|trace| shape.contains(trace)), "{shape}");
    }
}

/// The PKCS#1 or SEC1 key in a PKCS#8 one.
pub fn traditional(pkcs8: &[u8]) -> Vec<u8> {
    let (_, sequence) = x509_parser::der_parser::parse_der(pkcs8).unwrap();
    sequence.as_sequence().unwrap()[2].as_slice().unwrap().to_vec()
}

/// A root with RSA of 1024 bits.
pub const RSA_1024: &str = "\
-----BEGIN CERTIFICATE-----
MIICNDCCAZ2gAwIBAgIUFOWACRNe0WAu4ZUj/Ds1wrP0R0MwDQYJKoZIhvcNAQEL
BQAwIzEOMAwGA1UECgwFSXN0aW8xETAPBgNVBAMMCFJTQSAxMDI0MCAXDTI2MTEy
NDEyMDQyNVoYDzIxMjYxMDMxMTIwNDI1WjAjMQ4wDAYDVQQKDAVJc3RpbzERMA8G
A1UEAwwIUlNBIDEwMjQwgZ8wDQYJKoZIhvcNAQEBBQADgY0AMIGJAoGBAKIZkVmk
zGNTQTEqq6K2VFKpuv+72/u4vMRgn75dn3rCfsekd6HBmlFStciywBRPq8VtnXWM
Xwi7sb7eZU/hcL+Rct+D8zqsA4uRlvyeyjgSGEoo9vmrvE2L4qpWzw4RPjSuNBoG
YiZ+JyMxyn4ZpfAUl0xqsAOXsNY2KE/WHGahAgMBAAGjYzBhMB0GA1UdDgQWBBRU
fE0BDcfsL7AcJ5YUm48GI73zoTAfBgNVHSMEGDAWgBRUfE0BDcfsL7AcJ5YUm48G
I73zoTAPBgNVHRMBAf8EBTADAQH/MA4GA1UdDwEB/wQEAwICBDANBgkqhkiG9w0B
AQsFAAOBgQAgjE4tbmUADaaF/rW60yQa7KT+mloOsN1JJypcqNLAG4cSA8NvpJvK
+aQJCiFABQb+36m/4fmLiUur41CNxFArfbt1qk/csd3BCg8AH+binP/PlHzaafy3
EEp1QlTZR3QB6I28YT3qhI+y0l68IjDXzjWdcwJxUEMUOf4O7U3Tsw==
-----END CERTIFICATE-----
";

/// A root signed with SHA-1, by `openssl req -x509 -sha1`: without keyUsage.
pub const SHA1: &str = "\
-----BEGIN CERTIFICATE-----
MIIDIzCCAgugAwIBAgIUFjKxa8qI7h3fZTdUzQ3BCbtri+QwDQYJKoZIhvcNAQEF
BQAwIDEOMAwGA1UECgwFSXN0aW8xDjAMBgNVBAMMBVNIQS0xMCAXDTI2MTEyNDEy
MDQyNVoYDzIxMjYxMDMxMTIwNDI1WjAgMQ4wDAYDVQQKDAVJc3RpbzEOMAwGA1UE
AwwFU0hBLTEwggEiMA0GCSqGSIb3DQEBAQUAA4IBDwAwggEKAoIBAQDw+jFejsZU
233Oq0CK3Eo12Fho6dMhKPOzyAcKtjt8TRMlURZMD4XC7cHxTaGZsHPN5absf/RD
j+XFYEqziP6oJB3L5b+VPbsmoiyN4XNOC7b8TX2igVhzUsWSSz8bzIICd9VL3nli
2ma/4udZmjOER2HSsyfDlQfMKtRFjaxWmnaIjgpcEQ0IiwjFJMnETWTp3Q5rdZ01
nKVGyOB73zWF71bEFURYMylGwIN0hNzIuHwxS2wkTr0sQrZM0J7YDSqpi4sCVztN
Pl759sRSrGSLuvYmLBLlQcY34ln1zzZfx4arUHiULMHpe8fxd8uUQENIzosVtrKy
oiZAUJlOPGWFAgMBAAGjUzBRMB0GA1UdDgQWBBRwR+H/yP75lX1Sjn2prJO56j61
WDAfBgNVHSMEGDAWgBRwR+H/yP75lX1Sjn2prJO56j61WDAPBgNVHRMBAf8EBTAD
AQH/MA0GCSqGSIb3DQEBBQUAA4IBAQAih5fT/x96iAKzl+hmkHswGk3ueQyMWel2
Yf98wQpiborVQBb7dglH2bPSSYoQuok3l/HLxzr01CZKYJMr84oV3MiGOGqpqDQR
GhADEyPazToBWHXt4qtax94dYQ9nR8r4I5f3+FlU77u7bvjLjTm4MS5O98KIjObu
3kQ5BRTuRSVtK4YEM9vlVCN7nHpEmi09xl7IJD89Hs0Ob5ee0eU43b2Z8vYKquLN
Tg35d6wYkKoYZ9hL722SKaqh61JzfFrg4fXUXP8/diMB13Os5XOA/dFAH4kbhg7M
kbKQbpe44UOomArfL1jbP8TQQOl6Po2veYyNrZ34pwdxPvOyPIEU
-----END CERTIFICATE-----
";

/// A CA that the root above signed with SHA-1.
pub const UNDER_SHA1: &str = "\
-----BEGIN CERTIFICATE-----
MIICbjCCAVagAwIBAgIUWWTx6mUpoHKvyQqaAM/W2H4WZ6wwDQYJKoZIhvcNAQEF
BQAwIDEOMAwGA1UECgwFSXN0aW8xDjAMBgNVBAMMBVNIQS0xMCAXDTI2MTEyNDEy
MDQyNVoYDzIxMjYxMDMxMTIwNDI1WjAmMQ4wDAYDVQQKDAVJc3RpbzEUMBIGA1UE
AwwLVW5kZXIgU0hBLTEwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASsqKNM0rmZ
TMWlzKv35Av17zJT2fO6SWRMSnbEO4otDGvFnkbzQwB9XtCjBOxGzCrQLBMqzEGd
Wa1ClSJPuMYRo2MwYTAPBgNVHRMBAf8EBTADAQH/MA4GA1UdDwEB/wQEAwICBDAd
BgNVHQ4EFgQUUapruG/YPTeQWScKyp/PB486dcQwHwYDVR0jBBgwFoAUcEfh/8j+
+ZV9Uo59qayTueo+tVgwDQYJKoZIhvcNAQEFBQADggEBANWHnWXXuVZJCF+3Augs
JkE0CMTXLajuoAiSKePAHvGgLjcN2hsXrak6cEuDEebiowOVrlEGV0pvpsoDdxEF
e7Pz4+FqsZsMjaVvol37d5LQRCiTVqid5HQEtfnemrv8gMwFV+3XVl0fYYKMwe72
z+r3RwOb6ZkPyTB80b54kqSIJR19e5n7w2G9W4l51hgUNJ07vMR+O/LqhxFnxD+O
vFYgVq7F8pB1F8OW1wf+xCaHIk8DfzCe/mQp52Hu2bXhSPoyywwW1dUesZzhmVva
gss3+O4n0Q/djrM4Yi6EAR+2a332bROgc7yAaCDEkaaf35JtGKEmX+e98uy6HXam
FVY=
-----END CERTIFICATE-----
";

/// The same with the root's own name.
pub const SELF_ISSUED_SHA1: &str = "\
-----BEGIN CERTIFICATE-----
MIICaDCCAVCgAwIBAgIUNwBw0arE5JRgMN/KMXoj/XOCCbswDQYJKoZIhvcNAQEF
BQAwIDEOMAwGA1UECgwFSXN0aW8xDjAMBgNVBAMMBVNIQS0xMCAXDTI2MTEyNDEy
MzU1OFoYDzIxMjYxMDMxMTIzNTU4WjAgMQ4wDAYDVQQKDAVJc3RpbzEOMAwGA1UE
AwwFU0hBLTEwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATg2Eq562O8q5KJ+oGT
9e7OOZTvNBJwofGJO67FkvhzwYm88cNGEHf/j+eabZTl/hVGbtc6osWhEtc9ppxi
ivpwo2MwYTAPBgNVHRMBAf8EBTADAQH/MA4GA1UdDwEB/wQEAwICBDAdBgNVHQ4E
FgQUqlGRIwSsqxzI1VnPtGKqHRPTjTkwHwYDVR0jBBgwFoAUcEfh/8j++ZV9Uo59
qayTueo+tVgwDQYJKoZIhvcNAQEFBQADggEBAL3zkaiDGtEEEa2I4+bbDO4JhyQ/
03zCcKT1R8WJRr9GnnykLOmqPqlGU6/hrvtndvGe9ABLFZiymC+LYYZ6bUGPQ7hX
DtCrXG3xmxaU7casNpZwgPBfyKPc4DH81janmoBVTS3yRY+mgFQEeNp9do06SgV7
Zty8OZOsYqMuhl4sgN6yqMmfVt4xbD5Lo1sy9A5wIqFsfYJKI+leicO4Rj4NpUrk
uKsfJunZE1rkrj6tErm21CHjja0tsQChaxat7uywTmOYApNh+NYU0s+qzN4RaQpB
Svwx3WZG0TfzwXoKpfP2SYJDVoCzC1jppWYAVY09pJYpeLnsqi4byJ3wvvE=
-----END CERTIFICATE-----
";

/// A root signed with MD5.
pub const MD5: &str = "\
-----BEGIN CERTIFICATE-----
MIIDHzCCAgegAwIBAgIUdUvmAwBTLfA86xiHy28RKBSXPVUwDQYJKoZIhvcNAQEE
BQAwHjEOMAwGA1UECgwFSXN0aW8xDDAKBgNVBAMMA01ENTAgFw0yNjExMjQxMjA0
MjVaGA8yMTI2MTAzMTEyMDQyNVowHjEOMAwGA1UECgwFSXN0aW8xDDAKBgNVBAMM
A01ENTCCASIwDQYJKoZIhvcNAQEBBQADggEPADCCAQoCggEBAKWSCRSfzoOpf4y/
fonUU5bIsshBragHz/4inUt4Qr+YoPZV9m1bGfE3B7r8r9sF7FqHMgJ9nHNQfXUP
x7DHdqVUPo8LwTBnEVAEWIuPbiOuPFpBnLdPYG8mrgK6joMzGE/ggQnRsVCYqYea
PPdd8EK8ESMjw0nYylB4z1CU7uySY3Q79NKItdw9Krc+WS5D0mWkbGl+3SRH+SrF
d6Rx8thu4eZGB5FxU78o1eWCDP+k4x/pscC0mZ/dZ4NA/ly0DOWbMIfHsQdHuyJI
KoZaKIKvK6RxRg5zBLLv97/HL8H8a8jRIuaaryf2mlX0W3A6WLsxzxZ1Ng7WAFAA
9Zz2kG0CAwEAAaNTMFEwHQYDVR0OBBYEFPW3hUcB96oPnfRWHgyrIRlngNriMB8G
A1UdIwQYMBaAFPW3hUcB96oPnfRWHgyrIRlngNriMA8GA1UdEwEB/wQFMAMBAf8w
DQYJKoZIhvcNAQEEBQADggEBAE967jHE4BspqyPlxKYnDpiK/0HJ10Yft7uqdnhK
dfWicJzSLEtN0XPkCG2R27uB5Ff23SysjhzPgcFu35mXyJh36eY0qVcpXzCpzqED
Gd+zMRiT9qllv/OntWS1PaoslT//XEtytqueSxJOc3A24DnqJOeUBhw5BM7MZowB
1serajU0yhAGT0MkGn6nk2hKZFdPMYled48+fkPdrwuVv8UMf0dXuAPqoouGrbg+
7a4I8ibid0AFH39OpATQQ3310kkW6qAZ50ukZGjFQF0qmhnEKcQYpoAX2bCNriy9
o6/epDgKyi9fPIA84SwdZogpLHwC8ox1O5NlqPxH/kzSPro=
-----END CERTIFICATE-----
";

/// A root signed with RSASSA-PSS.
pub const PSS: &str = "\
-----BEGIN CERTIFICATE-----
MIIDhzCCAjugAwIBAgIUAr9i33jqQKJotetlQA1GWvPsXtEwQQYJKoZIhvcNAQEK
MDSgDzANBglghkgBZQMEAgEFAKEcMBoGCSqGSIb3DQEBCDANBglghkgBZQMEAgEF
AKIDAgEgMB4xDjAMBgNVBAoMBUlzdGlvMQwwCgYDVQQDDANQU1MwIBcNMjYxMTI0
MTIwNDI1WhgPMjEyNjEwMzExMjA0MjVaMB4xDjAMBgNVBAoMBUlzdGlvMQwwCgYD
VQQDDANQU1MwggEiMA0GCSqGSIb3DQEBAQUAA4IBDwAwggEKAoIBAQC49A8G/SK3
Rp8lFq08/1fG5S+ySqUQQdIEubLshrgcfsgVOKXF8CDkn6z1DXvnoBmhol97clJv
UTLDr1C1kt7BMnszCC/JG1h8zKfLhUaFDcl2mr4RH/WY70pmkr4UOVqFaIW6cZYd
y+xqNN3ZuSSrOpOBSKqGGN3iTP3ukKykfVfuozQ4GgBkAritJ+SjM4fYXBixVYNg
E+bgmW0mW6BIs2MyIc1TneIcpVufoRbCALii6lEKgYnKkao4r++BdvFzFfyXxNie
AK95aEb1z7BqfxppIUwI+vCw8Z99oIrpff1r1DXM5xvWyv3I/xueadeFPA65rUQV
zOhJxThX+xxJAgMBAAGjUzBRMB0GA1UdDgQWBBSJR6YLjQv9Kzz7GwszbXxeLyHh
DzAfBgNVHSMEGDAWgBSJR6YLjQv9Kzz7GwszbXxeLyHhDzAPBgNVHRMBAf8EBTAD
AQH/MEEGCSqGSIb3DQEBCjA0oA8wDQYJYIZIAWUDBAIBBQChHDAaBgkqhkiG9w0B
AQgwDQYJYIZIAWUDBAIBBQCiAwIBIAOCAQEANUCIsoxOFucjhwYUk4ce40d7d/ZO
bKVJu5K7C0BfLeA18X2p3m3vu4D5TH+lcxQqPpyq5x16SMaalyZ7S/ax94UJKC2R
KuUN86xCvQsSCgbmKWR6/3fkZOitmPCxMoO1kc2RjhoxPoJXCSGCZhaGC5EsxDzW
8nk9Mu3mFKeLG0qiCLm8lrOBcjJHhoaZjXslAPB5wEkPNmuH++AfZn7UUxl7hSZH
qEBFkCXMxqn+a/U7E4iVy9lSoAiBaH1xNdauxn+beljXNt+Y7YatWwR+2bZuPZtd
OIavo4BdfXpoEoJCC9utOu4FyEadC5MZOPMib1u713gW24dP3pVryFndew==
-----END CERTIFICATE-----
";

/// Self-signed, X.509 version 1.
pub const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBRzCB7wIUE3aPRSvi+OD2tD+HuV1C1iYmUgMwCgYIKoZIzj0EAwIwJjEOMAwG
A1UECgwFSXN0aW8xFDASBgNVBAMMC1VuZGVyIFNIQS0xMCAXDTI2MTEyNDEyMDQy
NVoYDzIxMjYxMDMxMTIwNDI1WjAmMQ4wDAYDVQQKDAVJc3RpbzEUMBIGA1UEAwwL
VW5kZXIgU0hBLTEwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASsqKNM0rmZTMWl
zKv35Av17zJT2fO6SWRMSnbEO4otDGvFnkbzQwB9XtCjBOxGzCrQLBMqzEGdWa1C
lSJPuMYRMAoGCCqGSM49BAMCA0cAMEQCIBRP3Qx4+DzUI22xPD8KqIOQHZ7+LZtp
fSk4CF6Wy7pRAiBfQdZU/F0Oi28Pbc7yLduAS6rL4vwETvt+RYlbI81WMg==
-----END CERTIFICATE-----
";

/// A P-256 root signed with SHA-384.
pub const P256_SHA384: &str = "\
-----BEGIN CERTIFICATE-----
MIIBljCCAT2gAwIBAgIUEvVX/Pabg5B5CVOCKuyR4dqyUZowCgYIKoZIzj0EAwMw
IDEOMAwGA1UECgwFSXN0aW8xDjAMBgNVBAMMBVAtMjU2MCAXDTI2MTEyNDEyMDgx
MVoYDzIxMjYxMDMxMTIwODExWjAgMQ4wDAYDVQQKDAVJc3RpbzEOMAwGA1UEAwwF
UC0yNTYwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAS+Z/Xv1Pvsz/tiq1FE94g2
rvsSZ85+NY41OfGAYAsDQ6smDWbiSpCqbMWqBoern8QNPWeE+no/mG9LYumMalSP
o1MwUTAdBgNVHQ4EFgQUJSvBuqqFZ0a0DWRvlbGafhVhjpQwHwYDVR0jBBgwFoAU
JSvBuqqFZ0a0DWRvlbGafhVhjpQwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQD
AwNHADBEAiAzXWDuusYm5P5S+0zcOrMaJs56jZKkigz1xCorORuF3gIgOHcJRvtb
cTn6IjXyvD66UQXghoPZUrKpwrq6rhhmYmU=
-----END CERTIFICATE-----
";

/// A P-256 root signed with SHA-512.
pub const P256_SHA512: &str = "\
-----BEGIN CERTIFICATE-----
MIIBmDCCAT2gAwIBAgIUaSJulIeaZhLMPYLthHpN+hXeh9swCgYIKoZIzj0EAwQw
IDEOMAwGA1UECgwFSXN0aW8xDjAMBgNVBAMMBVAtMjU2MCAXDTI2MTEyNDEyMDgx
MVoYDzIxMjYxMDMxMTIwODExWjAgMQ4wDAYDVQQKDAVJc3RpbzEOMAwGA1UEAwwF
UC0yNTYwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAS+pRLDVOseugonrbMdQ9zj
RkZw+tlpsS/GZ2wbDa4qyXZY3lcdE69xNH83zK+bfmbHjOv46Rv9lXUizuZVl0z2
o1MwUTAdBgNVHQ4EFgQUXVjIrGZfS1sGMUOP02J1UMDfZj0wHwYDVR0jBBgwFoAU
XVjIrGZfS1sGMUOP02J1UMDfZj0wDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQD
BANJADBGAiEAz2GkMjTqapZFudWxhR7EOSmZN+7mw3g884LYAnpXkIACIQCHKqZJ
DSEepKk+o2+SKPwEW9OuYHhoXDxeNQst1sNikg==
-----END CERTIFICATE-----
";

/// A P-384 root signed with SHA-256.
pub const P384_SHA256: &str = "\
-----BEGIN CERTIFICATE-----
MIIB1DCCAVqgAwIBAgIUPweEVpXjOlEPgXNENmga2frpo4owCgYIKoZIzj0EAwIw
IDEOMAwGA1UECgwFSXN0aW8xDjAMBgNVBAMMBVAtMzg0MCAXDTI2MTEyNDEyMDgx
MVoYDzIxMjYxMDMxMTIwODExWjAgMQ4wDAYDVQQKDAVJc3RpbzEOMAwGA1UEAwwF
UC0zODQwdjAQBgcqhkjOPQIBBgUrgQQAIgNiAATud4jE3GVihuaM6Ng3QXzUAo9f
IcQVfX7FUFGtfkIcz6aQaMcXIxEi6e+xbnKDQH9ZWkuuJUBzBEtp4uoORbpyIMIA
JIQdDgWQvMgdik0kjMWBIxVvJIZ6MnoGnaV1ewejUzBRMB0GA1UdDgQWBBQO1x4S
Aqp6PAiha+1i8j0IMdD5KDAfBgNVHSMEGDAWgBQO1x4SAqp6PAiha+1i8j0IMdD5
KDAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA2gAMGUCMGnfeoaTOBn8LFrb
/Je3Tfbu0dl8Z1IX1hOkN5SWiQ5WzcETnJGqyYddR7NOFaBPWwIxAIHOthEgWV57
TwurAn4FIg1021RFAxPiZ92Gd6yeEkMGgRx9+XCfTtSTqmQcWCRunw==
-----END CERTIFICATE-----
";

/// A P-384 root signed with SHA-512.
pub const P384_SHA512: &str = "\
-----BEGIN CERTIFICATE-----
MIIB0zCCAVqgAwIBAgIUZdSjbc/uPnRKkoKkbDRKf9o20XcwCgYIKoZIzj0EAwQw
IDEOMAwGA1UECgwFSXN0aW8xDjAMBgNVBAMMBVAtMzg0MCAXDTI2MTEyNDEyMDgx
MVoYDzIxMjYxMDMxMTIwODExWjAgMQ4wDAYDVQQKDAVJc3RpbzEOMAwGA1UEAwwF
UC0zODQwdjAQBgcqhkjOPQIBBgUrgQQAIgNiAATjrwrHCgMJTO9uRfAk+Kb3uYeC
brbWeMQxCjbFv1AEFkh3jfmGiHGbCNpDOmyzBZIQhkYsHiG70K4Mc5JJ3FqGbG4i
c1pHam0tiF861FEq3NHnKULiXzquH84qAaE38rujUzBRMB0GA1UdDgQWBBQtIU12
2ORM/ALY5HRc54jFDPHlKjAfBgNVHSMEGDAWgBQtIU122ORM/ALY5HRc54jFDPHl
KjAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMEA2cAMGQCMFS7iqXlCk0XQqAS
2YBsgcJQV3TGWEJi+kvjpqFpJ/2e5LJsk0ZAS3rxkf0wOA9U2gIwIglc9pAXs/7y
KL2RfhwEn550uiDNJV4J5GJiCCpvBoktCkbUOF19IERnTR+WuFmi
-----END CERTIFICATE-----
";
