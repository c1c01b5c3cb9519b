# The images of Lastcall. The sidecar's is one static binary and the trusted roots
# for TLS; that of the cluster's side (docs/admission.md) is one static binary.
#
#   docker build -t lastcall .
#   docker build -t lastcall-admission --target admission .
#
# Another base image for the build, such as a mirror's: --build-arg GO_IMAGE=…
# It must hold Go (as go.mod asks), a shell, and ca-certificates.
ARG GO_IMAGE=docker.io/library/golang:1.26

# The compiler runs on the builder's own platform and cross-compiles, which is
# many times quicker than emulating the target.
FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=dev
ARG COMMIT=unknown
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -gcflags=all=-dwarf=false \
      -ldflags "-s -w -X main.version=$VERSION -X main.commit=$COMMIT" \
      -o /out/lastcall ./cmd/lastcall

FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS build-admission
WORKDIR /src
COPY go.mod go.sum ./
COPY admission/go.mod admission/go.sum admission/
RUN go -C admission mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=dev
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -C admission -trimpath -buildvcs=false -gcflags=all=-dwarf=false \
      -ldflags "-s -w -X main.version=$VERSION" \
      -o /out/lastcall-admission ./cmd/lastcall-admission

FROM scratch AS admission
ARG VERSION=dev
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="lastcall-admission" \
      org.opencontainers.image.description="The cluster's side of Lastcall: injection, checks and the gate" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$COMMIT"
COPY --from=build-admission /out/lastcall-admission /bin/lastcall-admission
USER 65532:65532
EXPOSE 9443
ENTRYPOINT ["/bin/lastcall-admission"]

# The last stage is what is built without --target: the sidecar.
FROM scratch
ARG VERSION=dev
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="lastcall" \
      org.opencontainers.image.description="A Kubernetes sidecar that lets a pod leave without a failed request" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$COMMIT"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# Not /lastcall: that is where the volume shared with the app is mounted.
COPY --from=build /out/lastcall /bin/lastcall
# By number: Kubernetes' runAsNonRoot cannot look a name up in an image without
# /etc/passwd.
USER 65532:65532
EXPOSE 8099
ENTRYPOINT ["/bin/lastcall"]
