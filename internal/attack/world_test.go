package attack

import (
	"os"
	"testing"

	"lastcall/internal/sidecartest"
)

var program sidecartest.Program

func TestMain(m *testing.M) { os.Exit(sidecartest.MainAsShipped(m, &program)) }
