package attack

import (
	"os"
	"testing"

	"lastcall/internal/test/sidecar"
)

var program sidecar.Program

func TestMain(m *testing.M) { os.Exit(sidecar.MainAsShipped(m, &program)) }
