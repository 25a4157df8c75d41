package server

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A product says where a server comes from.
type product struct {
	name     string   // for people
	binaries []string // any of these is the server
	debian   string   // the package of Debian and Ubuntu
	homebrew string
	folders  []string // beside PATH; patterns, of which the highest number is tried first
}

func postgresProduct() product {
	return product{
		name: "PostgreSQL", binaries: []string{"postgres"}, debian: "postgresql", homebrew: "postgresql@17",
		folders: []string{
			"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin",
			"/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin",
		},
	}
}

func bouncerProduct() product {
	return product{name: "PgBouncer", binaries: []string{"pgbouncer"}, debian: "pgbouncer", homebrew: "pgbouncer"}
}

func mariadbProduct() product {
	return product{
		name: "MariaDB", binaries: []string{"mariadbd"}, debian: "mariadb-server", homebrew: "mariadb",
		folders: []string{"/opt/homebrew/opt/mariadb/bin", "/usr/local/opt/mariadb/bin"},
	}
}

func redisProduct() product {
	return product{name: "Redis", binaries: []string{"redis-server", "valkey-server"}, debian: "redis-server", homebrew: "redis"}
}

func etcdProduct() product {
	return product{name: "etcd", binaries: []string{"etcd"}, debian: "etcd-server", homebrew: "etcd"}
}

// find returns the path of the server's binary. A link stays one: Redis' programs
// are one file that goes by the name it is called.
func (p product) find() (string, error) {
	for _, binary := range p.binaries {
		if path, err := find(binary, p.folders); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed: no %s on PATH or in %s; run `make servers` at the top of the repository"+
		" or install the package %s (Debian, Ubuntu) or %s (Homebrew)",
		p.name, strings.Join(p.binaries, " or "), strings.Join(p.everywhere(), ", "), p.debian, p.homebrew)
}

// tool returns the path of another program that comes with the server.
func (p product) tool(server, name string) (string, error) {
	path, err := find(name, append([]string{filepath.Dir(server)}, p.folders...))
	if err != nil {
		return "", fmt.Errorf("%s is installed (%s) but its %s is not: run `make servers` at the top of the repository"+
			" or install the whole package %s (Debian, Ubuntu) or %s (Homebrew)", p.name, server, name, p.debian, p.homebrew)
	}
	return path, nil
}

func (p product) everywhere() []string {
	return append(slices.Clone(p.folders), commonFolders()...)
}

func commonFolders() []string {
	return []string{"/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/opt/homebrew/bin", "/opt/homebrew/sbin", "/usr/local/bin"}
}

// find looks for a binary in folders, on PATH, and where packages put what an
// ordinary user does not call. A server's own folder goes before PATH: there,
// Debian has a wrapper of psql that looks for clusters of its own.
func find(binary string, folders []string) (string, error) {
	var candidates []string
	for _, pattern := range folders {
		found, err := filepath.Glob(filepath.Join(pattern, binary))
		if err != nil {
			return "", err // the pattern is wrong, and it is ours
		}
		slices.SortFunc(found, func(a, b string) int { return cmp.Compare(number(b), number(a)) })
		candidates = append(candidates, found...)
	}
	candidates = append(candidates, binary)
	for _, folder := range commonFolders() {
		candidates = append(candidates, filepath.Join(folder, binary))
	}
	for _, candidate := range candidates {
		if path, err := exec.LookPath(candidate); err == nil {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

// number is the first number in a path: the version of the product.
func number(path string) int {
	digits := regexp.MustCompile(`\d+`).FindString(path)
	n, _ := strconv.Atoi(digits) // none is 0
	return n
}

// version asks a binary for its version: the first thing in its answer that looks like one.
func version(binary string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, _ := exec.CommandContext(ctx, binary, "--version").CombinedOutput() // no answer, no version
	if found := regexp.MustCompile(`\d+\.\d+[\w.+~-]*`).Find(out); found != nil {
		return string(found)
	}
	return "of unknown version"
}

// environment is what a server and its tools get to see: nothing of PGHOST, MYSQL_… and the like.
func environment(home string) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home, "LC_ALL=C", "TZ=UTC"}
}
