// Package openapi writes an extension into the operations of an OpenAPI 3 file, in
// YAML or JSON, and leaves every other byte of it as it is: comments, order and
// spelling are their authors'.
//
// It does not check the file beyond what it needs to find the operations, and
// follows no references between files. It is for the semel command alone.
package openapi
