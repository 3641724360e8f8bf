package live

import (
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

const (
	// beat is how often a stream without news shows that it is there.
	beat = 15 * time.Second
	// patience is how long one event may take to be read.
	patience = 10 * time.Second
	// maxStreams bounds how many pages are kept up at once.
	maxStreams = 32
)

//go:embed shell.html shell.css shell.js
var assets embed.FS

// shell is the page around the report. It is parsed once; a broken one is a broken
// build.
var shell = template.Must(template.New("shell.html").ParseFS(assets, "shell.html"))

// handler serves the page to browsers of this host alone. A name that somebody
// else's DNS turns into a loopback address is not this host's: the Host header
// has to be a loopback address or localhost, also where the port is another one, as
// behind ssh -L.
func (p *page) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.shell)
	mux.HandleFunc("GET /report", p.report)
	mux.HandleFunc("GET /events", p.events)
	for name, kind := range map[string]string{"shell.css": "text/css", "shell.js": "text/javascript"} {
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind+"; charset=utf-8")
			http.ServeFileFS(w, r, assets, name)
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !ours(r.Host) {
			http.Error(w, "this is not the host of that name: open the address that xferbench printed", http.StatusMisdirectedRequest)
			return
		}
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-cache")
		mux.ServeHTTP(w, r)
	})
}

// ours tells whether a Host header names a loopback address.
func ours(host string) bool {
	name := host
	if n, _, err := net.SplitHostPort(host); err == nil {
		name = n
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && a.IsLoopback()
}

func (p *page) shell(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Security-Policy",
		"default-src 'none'; script-src 'self'; style-src 'self'; frame-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, s, _ := p.now()
	_ = shell.Execute(w, s) // its reader is gone
}

func (p *page) report(w http.ResponseWriter, r *http.Request) {
	html, s, _ := p.now()
	w.Header().Set("Content-Security-Policy", "frame-ancestors 'self'")
	if html == nil {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprintln(w, s.Text) // its reader is gone
		return
	}
	tag := `"` + s.Version + `"`
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(html) // its reader is gone
}

// events is a stream of server-sent events: the state at once, and each later one.
// A reader that falls behind misses states, never the last one; one that does not
// read is left.
func (p *page) events(w http.ResponseWriter, r *http.Request) {
	if !p.enter() {
		w.Header().Set("Retry-After", "5")
		http.Error(w, fmt.Sprintf("%d pages are open already: close one", maxStreams), http.StatusServiceUnavailable)
		return
	}
	defer p.leave()
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	send := func(text string) error {
		if err := out.SetWriteDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if _, err := fmt.Fprint(w, text); err != nil {
			return err
		}
		return out.Flush()
	}
	pulse := time.NewTicker(beat)
	defer pulse.Stop()
	for {
		_, s, changed := p.now()
		data, err := json.Marshal(s)
		if err != nil || send("data: "+string(data)+"\n\n") != nil {
			return
		}
		for waiting := true; waiting; {
			select {
			case <-r.Context().Done():
				return
			case <-changed:
				waiting = false
			case <-pulse.C:
				if send(":\n\n") != nil {
					return
				}
			}
		}
	}
}

func (p *page) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.streams >= maxStreams {
		return false
	}
	p.streams++
	return true
}

func (p *page) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.streams--
}
