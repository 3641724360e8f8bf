// Package browser drives a headless Chromium over its debugging pipe, for tests of
// the pages that the program writes or serves. It loads files and pages of this host.
package browser

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/testenv"
)

// patience is how long a browser may take for one answer, its start included.
const patience = 30 * time.Second

// Tab is a page of a browser of its own, which ends with the test.
type Tab struct {
	t       testing.TB
	in, out *os.File
	r       *bufio.Reader
	last    int
	session string
	// Complaints are what the page wrote to the console and what it threw.
	Complaints []string
}

// Open starts Chromium, where there is one; the requirement's name is "chromium".
func Open(t testing.TB) *Tab {
	t.Helper()
	bin := testenv.NeedTool(t, "chromium")
	theirIn, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(errors.Join(err, theirIn.Close(), in.Close()))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, bin, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--hide-scrollbars",
		"--disable-dev-shm-usage", "--remote-debugging-pipe", "--user-data-dir="+t.TempDir(), "about:blank")
	cmd.ExtraFiles = []*os.File{theirIn, theirOut} // its descriptors 3 and 4
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second
	err = cmd.Start()
	if err = errors.Join(err, theirIn.Close(), theirOut.Close()); err != nil {
		cancel()
		t.Fatal(errors.Join(err, in.Close(), out.Close()))
	}
	tab := &Tab{t: t, in: in, out: out, r: bufio.NewReader(out)}
	t.Cleanup(func() {
		if err := tab.end(cmd, cancel); err != nil {
			t.Errorf("chromium: %v\n%s", err, stderr.String())
		}
	})
	var target struct{ TargetID string }
	tab.Call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var session struct{ SessionID string }
	tab.Call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &session)
	tab.session = session.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		tab.Call(domain+".enable", nil, nil)
	}
	return tab
}

// end asks the browser to leave, so that it removes what it keeps in its folder.
func (t *Tab) end(cmd *exec.Cmd, cancel context.CancelFunc) error {
	_, err := t.in.WriteString(`{"id":0,"method":"Browser.close"}` + "\x00")
	timer := time.AfterFunc(patience, cancel)
	werr := cmd.Wait()
	timer.Stop()
	cancel()
	return errors.Join(err, werr, t.in.Close(), t.out.Close())
}

type message struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// Call calls a method of the DevTools protocol and decodes its result, unless
// result is nil. A failure ends the test.
func (t *Tab) Call(method string, params, result any) {
	t.t.Helper()
	if err := t.call(method, params, result); err != nil {
		t.t.Fatalf("%s: %v", method, err)
	}
}

func (t *Tab) call(method string, params, result any) error {
	t.last++
	m := map[string]any{"id": t.last, "method": method}
	if params != nil {
		m["params"] = params
	}
	if t.session != "" {
		m["sessionId"] = t.session
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if _, err := t.in.Write(append(b, 0)); err != nil {
		return err
	}
	answer, err := t.until(func(m message) bool { return m.ID == t.last })
	if err != nil || result == nil {
		return err
	}
	return json.Unmarshal(answer.Result, result)
}

// until reads messages up to the one that is waited for.
func (t *Tab) until(is func(message) bool) (message, error) {
	if err := t.out.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return message{}, err
	}
	for {
		b, err := t.r.ReadBytes(0)
		if err != nil {
			return message{}, fmt.Errorf("no answer: %w", err)
		}
		var m message
		if err := json.Unmarshal(bytes.TrimSuffix(b, []byte{0}), &m); err != nil {
			return m, err
		}
		switch m.Method {
		case "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded":
			t.Complaints = append(t.Complaints, string(m.Params))
		}
		if is(m) {
			if m.Error != nil {
				return m, errors.New(m.Error.Message)
			}
			return m, nil
		}
	}
}

// Load opens a page that is a file.
func (t *Tab) Load(path string) {
	t.t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.t.Fatal(err)
	}
	t.Visit("file://" + path)
}

// Visit opens a page by its address.
func (t *Tab) Visit(url string) {
	t.t.Helper()
	t.Call("Page.navigate", map[string]any{"url": url}, nil)
	if _, err := t.until(func(m message) bool { return m.Method == "Page.loadEventFired" }); err != nil {
		t.t.Fatalf("%s: %v", url, err)
	}
}

// Looks of a page for [Tab.View].
const (
	Light = "light"
	Dark  = "dark"
	Print = "print"
)

// View sets the width and height of the page in pixels and its look.
func (t *Tab) View(width, height int, look string) {
	t.t.Helper()
	t.Call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
	media := ""
	if look == Print {
		media, look = "print", Light
	}
	t.Call("Emulation.setEmulatedMedia", map[string]any{"media": media, "features": []map[string]string{{"name": "prefers-color-scheme", "value": look}}}, nil)
}

// Eval evaluates an expression in the page; a promise is awaited.
func (t *Tab) Eval(expression string, into any) {
	t.t.Helper()
	var r struct {
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		ExceptionDetails json.RawMessage `json:"exceptionDetails"`
	}
	t.Call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &r)
	if r.ExceptionDetails != nil {
		t.t.Fatalf("%s: %s", expression, r.ExceptionDetails)
	}
	if into == nil {
		return
	}
	if err := json.Unmarshal(r.Result.Value, into); err != nil {
		t.t.Fatalf("%s: %v", expression, err)
	}
}

// Picture is a PNG of the view.
func (t *Tab) Picture() []byte {
	t.t.Helper()
	var r struct{ Data string }
	t.Call("Page.captureScreenshot", map[string]any{"format": "png"}, &r)
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(r.Data))
	if err != nil {
		t.t.Fatal(err)
	}
	return b
}
