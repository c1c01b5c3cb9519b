# Builds any Go program of the examples. In the project's folder:
#
#   docker build -f examples/go.Dockerfile --build-arg PROGRAM=consul-go/app -t web:1.0 .
#
# Podman and buildah do not find this file's ignore file by themselves: pass
# --ignorefile examples/go.Dockerfile.dockerignore.
FROM docker.io/library/golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY examples examples
ARG PROGRAM
RUN CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o /out/program "./examples/$PROGRAM"

FROM scratch
COPY --from=build /out/program /program
USER 65532:65532
ENTRYPOINT ["/program"]
