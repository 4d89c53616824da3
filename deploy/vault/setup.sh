#!/bin/sh
# Sets Vault up for the gates. See setup.sh --help, and docs/operate.md.
set -eu

here=$(cd "$(dirname "$0")" && pwd)

usage() {
    cat <<'END'
Sets Vault up for the gates of the homelab and the NAS. Run it as often as you like: it changes only what is missing.

Usage: setup.sh [OPTION]... [STEP]...

Steps; all of them if none is named:
  vault      KV version 2 at secret/, the policies istio-ca-bootstrap and istio-ca-sync, a look at the audit devices
  homelab    auth mount and role istio-ca-bootstrap of the cluster that makes the root
  nas        auth mount and role istio-ca-sync of a cluster that copies it

Vault is reached with VAULT_ADDR, VAULT_CACERT, VAULT_NAMESPACE and VAULT_TOKEN, as by the command vault, or bao
where there is no vault.
setup.hcl beside this script is the policy that it needs.

Homelab. A config that is there is never written over, since others log in by it.
  --homelab-mount PATH                  the auth mount, of type kubernetes [kubernetes]
  --homelab-host URL                    its API server, as Vault reaches it [https://kubernetes.default.svc:443]
  --homelab-ca FILE                     the API server's CA, in PEM, and
  --homelab-reviewer-token-file FILE    a token that may review others; both only if Vault runs elsewhere

NAS. For a further cluster, run the step nas again with other values.
  --nas-by signature|review             what Vault does with a token [signature]:
                                        signature: checks it with the cluster's public keys (auth method jwt)
                                        review: asks the cluster's API server (auth method kubernetes)
  --nas-mount PATH                      the auth mount [kubernetes-nas]
  --nas-context NAME                    the kubeconfig's context, for what is not given by a file [nas]
  signature:
  --nas-issuer ISSUER                   of its service-account tokens [asked by kubectl]
  --nas-public-key FILE                 their public keys, in PEM [asked by kubectl]
  review:
  --nas-host URL                        its API server, as Vault reaches it; required
  --nas-ca FILE                         the API server's CA, in PEM, and
  --nas-reviewer-token-file FILE        a token that may review others
                                        [both of Secret kube-system/vault-token-reviewer: token-reviewer.yaml]

The root's key in Vault's PKI engine, and a signer for each cluster: docs/signing.md. Without it, the key is in the record.
  --signing                             sets this up, too: the engine, the policies istio-ca-root, istio-ca-rotate and one
                                        istio-ca-signer-NAME for each cluster, and the role istio-ca-rotate at the
                                        homelab's mount, for who changes the root
  --pki-mount PATH                      where the engine is [pki-mesh]
  --homelab-cluster NAME                the clusters' names, as GATE_CLUSTER has them [homelab]
  --nas-cluster NAME                    [nas]

  --force    writes over what is there and is not as it has to be: a policy, a role, the NAS's config. A NAS mount of
             the other type is disabled first, with all its roles. A reviewer's token is written anew. Never touched:
             an engine, a homelab mount, a homelab config
  --print    prints the commands of vault instead, for a Vault in which nothing is set up, and asks no Vault
  --help     this

Exit codes: 0 all is as it has to be; 1 something is not, and was left alone, or Vault or Kubernetes refused;
2 wrong use.
END
}

steps='' force='' print='' signing=''
pki_mount=pki-mesh homelab_cluster=homelab nas_cluster=nas
homelab_mount=kubernetes homelab_host='' homelab_ca='' homelab_token=''
nas_by=signature nas_mount=kubernetes-nas nas_context=nas
nas_issuer='' nas_key='' nas_host='' nas_ca='' nas_token=''
changed=0 kept=0 wrong=0

misused() { printf 'setup.sh: %s; see setup.sh --help\n' "$*" >&2; exit 2; }
die() { printf 'setup.sh: %s\n' "$*" >&2; exit 1; }

changed() { changed=$((changed + 1)); say 'changed ' "$*"; }
kept() { kept=$((kept + 1)); say 'as is   ' "$*"; }
wrong() { wrong=$((wrong + 1)); say 'WRONG   ' "$*"; }
note() { say 'note    ' "$*"; }
say() { printf '%s %s\n' "$1" "$2"; }

parse() {
    while [ $# -gt 0 ]; do
        option=$1
        shift
        case $option in
            --help | -h) usage; exit 0 ;;
            --force) force=yes; continue ;;
            --print) print=yes; continue ;;
            --signing) signing=yes; continue ;;
            vault | homelab | nas) steps="$steps $option"; continue ;;
            --*=*) value=${option#*=} option=${option%%=*} ;;
            --*) [ $# -gt 0 ] || misused "$option is unknown, or lacks its value"; value=$1; shift ;;
            *) misused "there is no step $option" ;;
        esac
        set_option "$option" "$value"
    done
    [ -n "$steps" ] || steps=' vault homelab nas'
}

set_option() {
    case $1 in
        --pki-mount) pki_mount=${2%/} ;;
        --homelab-cluster) homelab_cluster=$2 ;;
        --nas-cluster) nas_cluster=$2 ;;
        --homelab-mount) homelab_mount=${2%/} ;;
        --homelab-host) homelab_host=$2 ;;
        --homelab-ca) homelab_ca=$(file "$@") ;;
        --homelab-reviewer-token-file) homelab_token=$(file "$@") ;;
        --nas-by) nas_by=$2 ;;
        --nas-mount) nas_mount=${2%/} ;;
        --nas-context) nas_context=$2 ;;
        --nas-issuer) nas_issuer=$2 ;;
        --nas-public-key) nas_key=$(file "$@") ;;
        --nas-host) nas_host=$2 ;;
        --nas-ca) nas_ca=$(file "$@") ;;
        --nas-reviewer-token-file) nas_token=$(file "$@") ;;
        *) misused "there is no option $1" ;;
    esac
    [ -n "$2" ] || misused "$1 is empty"
}

file() { # OPTION FILE
    if [ ! -f "$2" ] || [ ! -r "$2" ] || [ ! -s "$2" ]; then misused "$1: $2 cannot be read, or is empty"; fi
    echo "$2"
}

check_options() {
    case $nas_by in signature | review) ;; *) misused "--nas-by: neither signature nor review: $nas_by" ;; esac
    case "$homelab_mount$nas_mount$pki_mount" in
        *[!A-Za-z0-9/_-]*) misused 'a mount of other characters than A-Z a-z 0-9 / _ -' ;;
    esac
    # In a policy, a * would stand for any other cluster's name.
    case "$homelab_cluster$nas_cluster" in
        *[!A-Za-z0-9._-]*) misused "a cluster's name of other characters than A-Z a-z 0-9 . _ -" ;;
    esac
    [ "$homelab_cluster" != "$nas_cluster" ] || misused "each cluster needs a name of its own: $nas_cluster is both"
    case ${homelab_ca:+ca}${homelab_token:+token} in
        '' | catoken) ;;
        *) misused '--homelab-ca and --homelab-reviewer-token-file go together' ;;
    esac
    case "$steps " in *' nas '*) check_nas_options ;; esac
    # OpenBao's command is Vault's by another name.
    if ! command -v vault >/dev/null && command -v bao >/dev/null; then
        vault() { bao "$@"; }
    fi
    needed='jq'
    [ -n "$print" ] || needed="$needed vault"
    for tool in $needed; do
        command -v "$tool" >/dev/null || die "$tool is not in PATH"
    done
}

check_nas_options() {
    [ "$nas_mount" != "$homelab_mount" ] || misused "each cluster needs an auth mount of its own: $nas_mount is both"
    if [ "$nas_by" = review ]; then
        [ -z "$nas_issuer$nas_key" ] || misused "--nas-issuer and --nas-public-key are for --nas-by signature"
        [ -n "$nas_host" ] || misused "--nas-by review needs --nas-host"
    else
        [ -z "$nas_host$nas_ca$nas_token" ] ||
            misused "--nas-host, --nas-ca and --nas-reviewer-token-file are for --nas-by review"
    fi
}

# Vault. Bodies go by standard input: arguments of a process are seen by others on this machine.

# ask COMMAND...: what this command of vault tells, as JSON; {} if there is nothing.
ask() {
    if [ -n "$print" ]; then
        echo '{}'
    elif vault "$@" >"$scratch/out" 2>"$scratch/err"; then
        jq -c 'if type == "object" and has("data") and has("request_id") then .data else . end' "$scratch/out"
    elif grep -q '^No value found at' "$scratch/err"; then
        echo '{}'
    else
        die "vault $*: $(cat "$scratch/err")"
    fi
}

# quoted TEXT: for a shell
quoted() {
    # shellcheck disable=SC2016 # a variable of jq
    jq -rn --arg text "$1" '$text | @sh'
}

# tell COMMAND...: runs this command of vault, or prints it.
tell() {
    if [ -n "$print" ]; then
        printf 'vault'
        printf ' %s' "$@"
        echo
    else
        vault "$@" >/dev/null 2>"$scratch/err" || die "vault $*: $(cat "$scratch/err")"
    fi
}

# put PATH [MORE] <BODY: writes a JSON object. MORE is printed in place of what must not be shown.
put() {
    if [ -n "$print" ]; then
        # shellcheck disable=SC2016 # variables of jq
        jq -r --arg path "$1" --arg more "${2:-}" '
            def text: if type == "array" then join(",") else tostring end;
            # A map is no KEY=VALUE.
            if any(.[]; type == "object") then "vault write \($path) - <<\u0027END\u0027\n\(tojson)\nEND"
            else ["vault write \($path)"]
            + [to_entries[] | select(.value != "" and .value != 0 and .value != []) | "\(.key)=\(.value | text | @sh)"]
            + if $more == "" then [] else [$more] end | join(" \\\n  ") end'
    else
        vault write "$1" - >/dev/null 2>"$scratch/err" || die "vault write $1: $(cat "$scratch/err")"
    fi
}

# differences NOW WANTED: in which fields NOW is not as WANTED, in words; nothing if it is.
differences() {
    jq -rn --argjson now "$1" --argjson wanted "$2" '
        def plain: if type == "array" then map(plain) | sort | if . == [] then null else . end
            elif type == "object" then map_values(plain)
            elif type == "string" then sub("\\s+$"; "") | if . == "" then null else . end else . end;
        [$wanted | to_entries[] | .key as $key | select((.value | plain) != ($now[$key] | plain))
            | [$now[$key], .value | tojson]
            | if map(length) | max > 100 then "\($key) is another" else "\($key) is \(.[0]), not \(.[1])" end]
        | join("; ")'
}

# settle PATH WANTED: brings what is at the path to what is wanted, or says why not.
settle() {
    now=$(ask read -format=json "$1")
    if [ "$now" = '{}' ]; then
        printf '%s' "$2" | put "$1"
        changed "$1: written"
        return
    fi
    different=$(differences "$now" "$2")
    if [ -z "$different" ]; then
        kept "$1"
    elif [ -n "$force" ]; then
        printf '%s' "$2" | put "$1"
        changed "$1: written over: $different"
    else
        wrong "$1: $different. Nothing was written over; --force does that"
    fi
}

engine() {
    now=$(ask secrets list -format=json)
    case $(printf '%s' "$now" | jq -r '.["secret/"] | if . then "\(.type) \(.options.version // "1")" else "none" end') in
        none)
            tell secrets enable -path=secret -version=2 kv
            changed 'secret/: enabled, KV version 2' ;;
        'kv 2') keeps_versions ;;
        'kv 1')
            wrong "secret/ is KV version 1, which has no check-and-set: two clusters could each make a root. It is" \
                "never upgraded here, since all who use it have to speak version 2 then. If they do:" \
                "vault kv enable-versioning secret" ;;
        *) wrong "secret/ is no KV engine. Free that path, or use another: docs/operate.md" ;;
    esac
}

# A version that Vault deletes by itself is a root that is lost.
keeps_versions() {
    age=$(vault read -field=delete_version_after secret/config 2>/dev/null) || age=0s
    if [ "$age" = 0s ]; then
        kept 'secret/: KV version 2'
    else
        wrong "secret/ deletes each version after $age, also the root: vault write secret/config delete_version_after=0s"
    fi
}

# A root is shortened to the mount's longest life without a word, and its signers with it.
roots_engine() {
    now=$(ask secrets list -format=json)
    # shellcheck disable=SC2016 # a variable of jq
    case $(printf '%s' "$now" | jq -r --arg path "$pki_mount/" '.[$path] | if . then
        if .type != "pki" then "other" elif .config.max_lease_ttl < 315360000 then "short" else "as is" end
        else "none" end') in
        none)
            tell secrets enable "-path=$pki_mount" -max-lease-ttl=87600h pki
            changed "$pki_mount/: enabled, PKI, of at most ten years" ;;
        'as is') kept "$pki_mount/: PKI, of at least ten years" ;;
        short)
            wrong "$pki_mount/ gives nothing for ten years, and would shorten the root:" \
                "vault secrets tune -max-lease-ttl=87600h $pki_mount" ;;
        *) wrong "$pki_mount/ is no PKI engine. Free that path, or use another by --pki-mount" ;;
    esac
}

policy() { # NAME [FILE CLUSTER]: of NAME.hcl, or of this file for a cluster
    file=$here/${2:-"$1"}.hcl
    made="s|CLUSTER|${3:-}|g; s|pki-mesh/|$pki_mount/|"
    if [ -n "$print" ] && [ "${2:-}$pki_mount" = pki-mesh ]; then
        tell policy write "$1" "$(quoted "$file")"
        return
    elif [ -n "$print" ]; then
        printf 'sed %s %s | ' "$(quoted "$made")" "$(quoted "$file")"
        tell policy write "$1" -
        return
    fi
    now=$(ask read -format=json "sys/policies/acl/$1")
    wanted=$(sed "$made" "$file" | jq -Rsc '{policy: .}')
    if [ "$now" != '{}' ] && [ -n "$(differences "$now" "$wanted")" ] && [ -z "$force" ]; then
        wrong "policy $1 is not that of ${file##*/}. Nothing was written over; --force does that"
    else
        settle "sys/policies/acl/$1" "$wanted"
    fi
}

audit() {
    [ -z "$print" ] || return 0
    if devices=$(vault audit list -format=json 2>/dev/null); then
        [ "$devices" = '{}' ] || return 0
        note 'no audit device is on, so nobody can tell later who read the root: vault audit enable file file_path=...'
    else
        note 'audit devices cannot be seen with this token: see that one is on'
    fi
}

# mounted PATH TYPE MAY-REPLACE: sees to an auth mount of this type. Fails if there is another one, and it stays.
mounted() {
    # shellcheck disable=SC2016 # a variable of jq
    now=$(printf '%s' "$auth" | jq -r --arg path "$1/" '.[$path].type // "none"')
    case $now in
        "$2") kept "auth/$1: of type $2"; return ;;
        none) how=enabled ;;
        *)
            if [ -z "$force" ] || [ -z "$3" ]; then
                wrong "auth/$1 is of type $now, not $2. It stays, and nothing in it was looked at"
                return 1
            fi
            tell auth disable "$1"
            how="replaces one of type $now" ;;
    esac
    tell auth enable "-path=$1" "$2"
    changed "auth/$1: $how, of type $2"
}

# What every role grants. The empty and zero ones would grant more, or end the gate's token early.
readonly GRANTED='"token_ttl": 3600, "token_max_ttl": 86400, "token_period": 0, "token_num_uses": 0'

# policies NAME...: as a JSON array.
policies() {
    # shellcheck disable=SC2016 # a variable of jq
    jq -nc '$ARGS.positional' --args "$@"
}

# The gate's account, and that of the Job, which is called like the role.

kubernetes_role() { # MOUNT NAME POLICIES
    settle "auth/$1/role/$2" '{"bound_service_account_names": ["istio-ca-gate", "'"$2"'"],
        "bound_service_account_namespaces": ["istio-system"], "bound_service_account_namespace_selector": "",
        "audience": "vault", "token_policies": '"$3"', '"$GRANTED"'}'
}

jwt_role() { # MOUNT NAME POLICIES
    settle "auth/$1/role/$2" '{"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"],
        "bound_subject": "", "bound_claims_type": "string", "bound_claims": {"sub":
        ["system:serviceaccount:istio-system:istio-ca-gate", "system:serviceaccount:istio-system:'"$2"'"]},
        "token_policies": '"$3"', '"$GRANTED"'}'
}

homelab() {
    mounted "$homelab_mount" kubernetes '' || return 0
    homelab_config
    if [ -n "$signing" ]; then
        policy "istio-ca-signer-$homelab_cluster" istio-ca-signer "$homelab_cluster"
        kubernetes_role "$homelab_mount" istio-ca-bootstrap \
            "$(policies istio-ca-bootstrap istio-ca-root "istio-ca-signer-$homelab_cluster")"
        rotate_role
    else
        kubernetes_role "$homelab_mount" istio-ca-bootstrap "$(policies istio-ca-bootstrap)"
    fi
    note "the homelab's gate: GATE_VAULT_AUTH_MOUNT=$homelab_mount${signing:+" $(of_signing "$homelab_cluster")"}"
}

# Of an account of its own, which no gate has.
rotate_role() {
    settle "auth/$homelab_mount/role/istio-ca-rotate" '{"bound_service_account_names": ["istio-ca-rotate"],
        "bound_service_account_namespaces": ["istio-system"], "bound_service_account_namespace_selector": "",
        "audience": "vault", "token_policies": ["istio-ca-rotate"], '"$GRANTED"'}'
}

homelab_config() {
    path=auth/$homelab_mount/config
    now=$(ask read -format=json "$path")
    host=$(printf '%s' "$now" | jq -r '.kubernetes_host // ""')
    if [ -z "$host" ]; then
        host=${homelab_host:-https://kubernetes.default.svc:443}
        if [ -n "$homelab_ca" ]; then
            review_config "$host" "$homelab_ca" | put_reviewer "$path" "$homelab_token"
        else
            # shellcheck disable=SC2016 # a variable of jq
            jq -nc --arg host "$host" '{kubernetes_host: $host}' | put "$path"
        fi
        changed "$path: written: $host"
    elif [ -z "$homelab_host" ] || [ "$host" = "$homelab_host" ]; then
        kept "$path: $host"
    else
        wrong "$path: kubernetes_host is $host, not $homelab_host. It is never written over: see who else logs in by it"
    fi
}

review_config() { # HOST CA-FILE
    # shellcheck disable=SC2016 # variables of jq
    jq -nc --arg host "$1" --rawfile ca "$2" \
        '{kubernetes_host: $host, kubernetes_ca_cert: $ca, disable_local_ca_jwt: true}'
}

# put_reviewer PATH TOKEN-FILE [ARGUMENT] <BODY: writes the config with the reviewer's token, which is never shown.
put_reviewer() {
    if [ -n "$print" ]; then
        put "$1" "${3:-"token_reviewer_jwt=@$(quoted "$2")"}"
    else
        # shellcheck disable=SC2016 # a variable of jq
        jq -c --rawfile token "$2" '.token_reviewer_jwt = ($token | sub("\\s+$"; ""))' | put "$1"
    fi
}

nas() {
    nas_policies=$(policies istio-ca-sync)
    if [ -n "$signing" ]; then
        policy "istio-ca-signer-$nas_cluster" istio-ca-signer "$nas_cluster"
        nas_policies=$(policies istio-ca-sync "istio-ca-signer-$nas_cluster")
    fi
    if [ "$nas_by" = review ]; then nas_by_review; else nas_by_signature; fi
}

nas_by_review() {
    printed=''
    if [ -z "$nas_ca" ]; then nas_ca=$scratch/nas-ca.pem; reviewer ca.crt >"$nas_ca"; fi
    if [ -z "$nas_token" ]; then
        nas_token=$scratch/nas-token
        printed="token_reviewer_jwt=\"\$(kubectl --context $(quoted "$nas_context") -n kube-system \\
    get secret vault-token-reviewer -o go-template='{{.data.token | base64decode}}')\""
        [ -n "$print" ] || reviewer token >"$nas_token"
    fi
    mounted "$nas_mount" kubernetes replace || return 0
    path=auth/$nas_mount/config
    wanted=$(review_config "$nas_host" "$nas_ca")
    now=$(ask read -format=json "$path")
    # Vault 1.21 tells whether it has a token, and never which.
    different=$(differences "$now" "$(printf '%s' "$now" | jq -c --argjson wanted "$wanted" \
        '$wanted + if has("token_reviewer_jwt_set") then {token_reviewer_jwt_set: true} else {} end')")
    if [ "$now" = '{}' ] || [ -n "$force" ]; then
        printf '%s' "$wanted" | put_reviewer "$path" "$nas_token" "$printed"
        changed "$path: written, with the reviewer's token: $nas_host"
    elif [ -z "$different" ]; then
        kept "$path: $nas_host; its reviewer's token is kept, --force writes it anew"
    else
        wrong "$path: $different. Nothing was written over; --force does that"
    fi
    kubernetes_role "$nas_mount" istio-ca-sync "$nas_policies"
    nas_note
}

# reviewer KEY: of the Secret that token-reviewer.yaml makes.
reviewer() {
    value=$(kubectl --context "$nas_context" -n kube-system get secret vault-token-reviewer \
        -o go-template="{{index .data \"$1\" | base64decode}}") ||
        die "no Secret vault-token-reviewer: kubectl --context $nas_context apply -f $here/token-reviewer.yaml"
    case $value in '' | '<no value>') die "Secret vault-token-reviewer has no $1 yet: try again" ;; esac
    printf '%s\n' "$value"
}

nas_by_signature() {
    if [ -z "$nas_issuer" ]; then
        nas_issuer=$(kubectl --context "$nas_context" get --raw /.well-known/openid-configuration | jq -er .issuer) ||
            die "context $nas_context tells no issuer: give it by --nas-issuer"
    fi
    if [ -z "$nas_key" ]; then
        nas_key=$scratch/nas-keys.pem
        "$here/public-keys.sh" "$nas_context" >"$nas_key"
    fi
    keys=$(pem_blocks "$nas_key")
    mounted "$nas_mount" jwt replace || return 0
    # shellcheck disable=SC2016 # variables of jq
    settle "auth/$nas_mount/config" "$(jq -nc --arg issuer "$nas_issuer" --argjson keys "$keys" \
        '{jwt_validation_pubkeys: $keys, bound_issuer: $issuer, oidc_discovery_url: "", jwks_url: "", jwks_pairs: []}')"
    jwt_role "$nas_mount" istio-ca-sync "$nas_policies"
    nas_note
}

nas_note() {
    note "the NAS's gate: GATE_VAULT_AUTH_MOUNT=$nas_mount${signing:+" $(of_signing "$nas_cluster")"}"
}

of_signing() { # CLUSTER
    printf 'GATE_VAULT_PKI_MOUNT=%s GATE_CLUSTER=%s' "$pki_mount" "$1"
}

# pem_blocks FILE: its public keys as a JSON array of PEM.
pem_blocks() {
    ! grep -q 'PRIVATE KEY' "$1" || die "$1 has a private key in it. Nothing of it was sent"
    jq -Rsce '[scan("-----BEGIN [A-Z ]*PUBLIC KEY-----[^-]*-----END [A-Z ]*PUBLIC KEY-----")]
        | if . == [] then empty else . end' "$1" || die "$1 has no public key in PEM"
}

# Last in this file, so that a part of it that was cut off does nothing.
main() {
    parse "$@"
    check_options
    scratch=$(umask 077 && mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    trap 'exit 1' HUP INT TERM
    if [ -n "$print" ]; then
        # Only the commands: what is told goes nowhere.
        changed() { :; }
        note() { :; }
    fi
    case "$steps " in
        *' vault '*)
            engine
            policy istio-ca-bootstrap
            policy istio-ca-sync
            if [ -n "$signing" ]; then
                roots_engine
                policy istio-ca-root
                policy istio-ca-rotate
            fi
            audit ;;
    esac
    case "$steps " in *' homelab '* | *' nas '*) auth=$(ask auth list -format=json) ;; esac
    case "$steps " in *' homelab '*) homelab ;; esac
    case "$steps " in *' nas '*) nas ;; esac
    [ -z "$print" ] || return 0
    if [ "$changed" -eq 0 ]; then echo "nothing changed: $kept as it has to be, $wrong wrong"
    else echo "$changed changed, $kept as it was, $wrong wrong"; fi
    [ "$wrong" -eq 0 ]
}

main "$@"
