#!/bin/sh
# Prints the public keys of a cluster's service-account tokens, in PEM: all that its API server accepts, by kubectl.
#   public-keys.sh [CONTEXT]      without a context, that of the kubeconfig
set -eu

die() { echo "public-keys.sh: $*" >&2; exit 1; }

# hex BASE64URL
hex() {
    text=$1
    while [ $((${#text} % 4)) -ne 0 ]; do text="$text="; done
    printf '%s' "$text" | tr '_-' '/+' | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n'
}

# RFC 8017, A.1.1, in RFC 5280's SubjectPublicKeyInfo, as openssl asn1parse has it described
rsa_key() { # MODULUS EXPONENT
    printf '%s\n' 'asn1=SEQUENCE:spki' '[spki]' 'algorithm=SEQUENCE:algorithm' 'key=BITWRAP,SEQUENCE:key' \
        '[algorithm]' 'oid=OID:rsaEncryption' 'none=NULL' '[key]' "n=INTEGER:0x$1" "e=INTEGER:0x$2"
}

# RFC 5480, with an uncompressed point
ec_key() { # CURVE POINT
    case $1 in
        P-256) name=prime256v1 ;;
        P-384) name=secp384r1 ;;
        P-521) name=secp521r1 ;;
        *) die "a key on curve $1 is not known here" ;;
    esac
    printf '%s\n' 'asn1=SEQUENCE:spki' '[spki]' 'algorithm=SEQUENCE:algorithm' "key=FORMAT:HEX,BITSTRING:04$2" \
        '[algorithm]' 'oid=OID:id-ecPublicKey' "curve=OID:$name"
}

for tool in kubectl jq openssl; do
    command -v "$tool" >/dev/null || die "$tool is not in PATH"
done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

kubectl ${1:+--context "$1"} get --raw /openid/v1/jwks >"$scratch/jwks" || die 'no keys from the API server'
jq -er '.keys[] | [.kty, .crv // "-", .n // .x, .e // .y] | join(" ")' "$scratch/jwks" >"$scratch/keys" ||
    die "the API server's answer has no keys"
while read -r kind curve first second; do
    case $kind in
        RSA) rsa_key "$(hex "$first")" "$(hex "$second")" ;;
        EC) ec_key "$curve" "$(hex "$first")$(hex "$second")" ;;
        *) die "a key of kind $kind is not known here" ;;
    esac >"$scratch/asn1"
    openssl asn1parse -genconf "$scratch/asn1" -noout -out "$scratch/der"
    openssl pkey -pubin -inform DER -in "$scratch/der"
done <"$scratch/keys"
