package httpapi

import (
	_ "embed"
	"net/http"
)

// OpenAPI describes the calls (OpenAPI 3.1). It is what GET /openapi.yaml answers.
//
//go:embed openapi.yaml
var OpenAPI string

func serveOpenAPI(w http.ResponseWriter, r *http.Request, _ query) error {
	write(w, r, http.StatusOK, "application/yaml", []byte(OpenAPI))
	return nil
}
