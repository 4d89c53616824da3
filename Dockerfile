# The project's own checks do not build this image: where they run there is no container engine. Build it once
# where you have one before you rely on it:
#
#   docker build -t registry.example/istio-ca-gate:0.1.0 --build-arg GATE_COMMIT="$(git rev-parse HEAD)" .
#
# The crypto library (aws-lc-sys) is C: it is compiled with the gcc and libc6-dev that the builder image has. On
# x86_64 and aarch64 Linux this needs neither cmake nor bindgen.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# For `--version`: .git is not copied. It may be left out.
ARG GATE_COMMIT
RUN cargo build --locked --release -p istio-ca-gate --bin istio-ca-gate

# The same Debian as the builder's, so that glibc and libgcc fit.
FROM debian:bookworm-slim
# Needed only where VAULT_CACERT is not set: then Vault's certificate is checked against these roots.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/istio-ca-gate /usr/local/bin/istio-ca-gate
# Any user without rights will do; the manifests name this one, too.
USER 65532:65532
EXPOSE 8443 8080
ENTRYPOINT ["/usr/local/bin/istio-ca-gate"]
CMD ["serve"]
