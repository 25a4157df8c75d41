package pocketbase

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	_ "github.com/pocketbase/pocketbase/migrations" // its own tables

	"github.com/semelhq/semel/cmd/e2e/internal/program"
)

// appVariable tells this test's binary to be the application, in the directory
// that it names.
const appVariable = "SEMEL_E2E_POCKETBASE_DIR"

const recordsPath = "/api/collections/orders/records"

// serveApp is the application: PocketBase with a collection of orders to which
// anybody may add. Nothing in it is unique but the id, which it draws itself, so
// an operation that runs twice leaves two objects. It says where it listens and
// ends with its standard input, that is with the test.
func serveApp(dir string) error {
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: dir})
	if err := app.Bootstrap(); err != nil {
		return err
	}
	if err := app.RunAllMigrations(); err != nil {
		return err
	}
	anybody := ""
	orders := core.NewBaseCollection("orders")
	orders.Fields.Add(&core.TextField{Name: "op", Required: true}, &core.NumberField{Name: "amount"})
	orders.CreateRule, orders.ListRule, orders.ViewRule = &anybody, &anybody, &anybody
	if err := app.Save(orders); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	app.OnServe().BindFunc(func(e *core.ServeEvent) error {
		e.Listener, e.InstallerFunc = listener, nil
		return e.Next()
	})
	fmt.Println(listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return apis.Serve(app, apis.ServeConfig{HttpAddr: listener.Addr().String()})
}

// application is the running one, as the test reaches it: directly.
type application struct{ address string }

func startApp(t *testing.T) application {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(self)
	command.Env = append(os.Environ(), appVariable+"="+t.TempDir())
	input, err := command.StdinPipe() // held open until the process is killed
	if err != nil {
		t.Fatal(err)
	}
	out, said := io.Pipe()
	command.Stdout = said
	process, err := program.Start(command)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		process.Kill()
		_ = input.Close()
		_ = said.Close()
	})
	lines := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		lines <- strings.TrimSpace(line)
		_, _ = io.Copy(io.Discard, out)
	}()
	select {
	case address := <-lines:
		if err := process.Serving(address, time.Minute); err != nil {
			t.Fatal("the application:", err)
		}
		return application{address}
	case <-process.Ended():
	case <-time.After(time.Minute):
	}
	t.Fatalf("the application did not start; it wrote:\n%s", process.Output())
	return application{}
}

// record is one object that the application holds.
type record struct {
	ID     string `json:"id"`
	Op     string `json:"op"`
	Amount int    `json:"amount"`
}

// records gives everything that the application holds.
func (a application) records(ctx context.Context) ([]record, error) {
	var all []record
	for page := 1; ; page++ {
		url := fmt.Sprintf("http://%s%s?perPage=500&sort=id&page=%d", a.address, recordsPath, page)
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return nil, err
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return nil, err
		}
		var list struct {
			Items      []record `json:"items"`
			TotalItems int      `json:"totalItems"`
		}
		err = json.NewDecoder(resp.Body).Decode(&list)
		_ = resp.Body.Close()
		switch {
		case err != nil:
			return nil, err
		case resp.StatusCode != http.StatusOK:
			return nil, fmt.Errorf("listing the records: %s", resp.Status)
		}
		all = append(all, list.Items...)
		if len(all) >= list.TotalItems || len(list.Items) == 0 {
			return all, nil
		}
	}
}
