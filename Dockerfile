# The image of Lastcall: one static binary and the trusted roots for TLS.
#
#   docker build -t lastcall .
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
    go build -trimpath -buildvcs=false \
      -ldflags "-s -w -X main.version=$VERSION -X main.commit=$COMMIT" \
      -o /out/lastcall ./cmd/lastcall

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
