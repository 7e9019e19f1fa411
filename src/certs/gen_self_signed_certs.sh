#!/usr/bin/env bash
# Makes a private CA for one dist_build installation, a certificate for each of its two roles, and
# the roles' tokens. Needs bash and openssl, nothing else.
#
#   gen_self_signed_certs.sh [OUT] [--force]
#
#   OUT/ca/      ca.pem, ca.key: the CA. Its key is only needed to make further certificates.
#   OUT/dev/     for the dev box (wrapper and syncer)
#   OUT/worker/  for the build machines (daemon)
#
# OUT defaults to $DIST_BUILD_HOME/certs, and that to ~/dist_build/certs. What exists is kept unless
# --force is given. The side that verifies a token holds only its SHA-256.
set -euo pipefail
umask 077

readonly CA_DAYS=3650
# Some TLS stacks refuse leaf certificates that are valid for longer than this.
readonly LEAF_DAYS=825

say() { printf '%s\n' "$*"; }
fail() { printf 'gen_self_signed_certs.sh: %s\n' "$*" >&2; exit 1; }
usage() { say "usage: gen_self_signed_certs.sh [OUT] [--force]"; }

out=
force=no
for argument in "$@"; do
    case $argument in
        --force) force=yes ;;
        -h | --help) usage; exit 0 ;;
        -*) usage >&2; fail "unknown option $argument" ;;
        '') fail "OUT is empty" ;;
        *) [ -z "$out" ] || fail "more than one OUT: $out, $argument"; out=$argument ;;
    esac
done
if [ -z "$out" ]; then
    home=${DIST_BUILD_HOME:-${HOME:?neither DIST_BUILD_HOME nor HOME is set}/dist_build}
    out=$home/certs
fi
while [ "$out" != / ] && [ "${out%/}" != "$out" ]; do out=${out%/}; done
case $out in /*) ;; *) out=$PWD/$out ;; esac

command -v openssl >/dev/null 2>&1 ||
    fail "openssl is not installed; on Debian or Ubuntu: sudo apt-get install openssl"

say_what_to_do() {
    say "dev box:       keep $out/dev (wrapper and syncer read it)"
    say "build machine: copy $out/worker to \$DIST_BUILD_HOME/certs/worker there, and nothing else:"
    say "               ssh BUILD1 'mkdir -p -m 700 dist_build/certs' && scp -rp '$out/worker' BUILD1:dist_build/certs/"
}

is_complete() {
    local file
    for file in ca/ca.pem ca/ca.key \
        dev/{ca.pem,cert.pem,key.pem,token,dev.token.sha256,worker.token.sha256} \
        worker/{ca.pem,cert.pem,key.pem,token,dev.token.sha256}; do
        [ -s "$1/$file" ] || return 1
    done
}

if [ -e "$out" ] || [ -L "$out" ]; then
    [ -d "$out" ] || fail "$out exists and is not a directory"
    if [ "$force" = no ]; then
        if is_complete "$out"; then
            say "$out exists already; --force makes a new CA, certificates and tokens"
            say_what_to_do
            exit 0
        fi
        [ -z "$(ls -A -- "$out")" ] ||
            fail "$out exists but is not complete; move it away, or use --force to replace it"
    elif [ -n "$(ls -A -- "$out")" ] && [ ! -e "$out/ca" ] && [ ! -e "$out/dev" ] && [ ! -e "$out/worker" ]; then
        fail "$out holds other things than certificates; name another directory"
    fi
fi

parent=$(dirname -- "$out")
mkdir -p -- "$parent"
# Everything is made beside OUT and renamed at the end: a run that is cut off leaves OUT as it was.
new=$(mktemp -d -- "$parent/.certs-new.XXXXXX")
old=
finish() {
    local code=$?
    if [ -n "$old" ] && [ -e "$old/certs" ]; then
        if [ -e "$out" ]; then rm -rf -- "$old"; else mv -- "$old/certs" "$out"; rm -rf -- "$old"; fi
    fi
    rm -rf -- "$new"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

quietly() {
    local log
    if ! log=$("$@" 2>&1); then
        printf '%s\n' "$log" >&2
        fail "failed: $*"
    fi
}

make_key() { quietly openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

make_ca() {
    mkdir "$new/ca"
    cat >"$new/ca.cnf" <<'END'
[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
string_mask = utf8only
[name]
CN = dist_build private CA
[extensions]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
END
    make_key "$new/ca/ca.key"
    quietly openssl req -x509 -new -sha256 -days "$CA_DAYS" -config "$new/ca.cnf" \
        -key "$new/ca/ca.key" -out "$new/ca/ca.pem"
}

# make_role ROLE DNS_NAME
make_role() {
    local dir=$new/$1
    mkdir "$dir"
    cat >"$new/leaf.cnf" <<END
[req]
distinguished_name = name
prompt = no
string_mask = utf8only
[name]
CN = $2
[extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:$2
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
END
    make_key "$dir/key.pem"
    quietly openssl req -new -sha256 -config "$new/leaf.cnf" -key "$dir/key.pem" -out "$new/leaf.csr"
    quietly openssl x509 -req -sha256 -days "$LEAF_DAYS" -in "$new/leaf.csr" \
        -CA "$new/ca/ca.pem" -CAkey "$new/ca/ca.key" -set_serial "0x$(openssl rand -hex 15)" \
        -extfile "$new/leaf.cnf" -extensions extensions -out "$dir/cert.pem"
    cp "$new/ca/ca.pem" "$dir/ca.pem"
    openssl rand -hex 32 >"$dir/token"
}

# sha256_of ROLE: the digest, in hex, of its token without the line's end
sha256_of() {
    local digest
    digest=$(tr -d '\n' <"$new/$1/token" | openssl dgst -sha256 -r)
    printf '%s\n' "${digest%% *}"
}

make_ca
make_role dev syncer.dist-build
make_role worker worker.dist-build
sha256_of dev >"$new/dev/dev.token.sha256"
sha256_of worker >"$new/dev/worker.token.sha256"
sha256_of dev >"$new/worker/dev.token.sha256"
rm -f -- "$new/ca.cnf" "$new/leaf.cnf" "$new/leaf.csr"
is_complete "$new" || fail "openssl wrote an empty file; is the disk full?"
quietly openssl verify -x509_strict -CAfile "$new/ca/ca.pem" "$new/dev/cert.pem" "$new/worker/cert.pem"
find "$new" -type d -exec chmod 700 {} +
find "$new" -type f -exec chmod 600 {} +

if [ -e "$out" ]; then
    old=$(mktemp -d -- "$parent/.certs-old.XXXXXX")
    mv -- "$out" "$old/certs"
fi
mv -- "$new" "$out"
say "made a CA (valid $CA_DAYS days), certificates ($LEAF_DAYS days) and tokens in $out"
say_what_to_do
