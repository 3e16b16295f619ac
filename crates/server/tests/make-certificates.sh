#!/bin/sh
# Makes the certificates of the TLS tests in the current directory.
set -eu
authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
        -days 2 -keyout "$1.key" -out "$1.pem"
    mkdir "$1.d"
    : >"$1.d/index"
    cat >"$1.cnf" <<END
[ca]
default_ca = this
[this]
database = $1.d/index
new_certs_dir = $1.d
certificate = $1.pem
private_key = $1.key
default_md = sha256
rand_serial = yes
unique_subject = no
policy = any
[any]
commonName = supplied
END
}
# name, authority, extended key usage, end
leaf() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
        -keyout "$1.key" -out "$1.csr"
    printf 'extendedKeyUsage=%s\nsubjectAltName=DNS:localhost\n' "$3" >"$1.ext"
    openssl ca -batch -notext -config "$2.cnf" -in "$1.csr" -out "$1.pem" -extfile "$1.ext" \
        -startdate 20200101000000Z -enddate "$4"
}
authority authority
authority stranger
leaf server authority serverAuth 21260101000000Z
leaf client authority clientAuth 21260101000000Z
leaf expired authority clientAuth 20210101000000Z
leaf misused authority serverAuth 21260101000000Z
leaf foreign stranger clientAuth 21260101000000Z
