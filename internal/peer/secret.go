package peer

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Secret is what the line that serve prints carries: 32 random bytes, made at
// each start. The TLS keys of both sides are derived from it, so that who holds
// the line can check the server and is known to it, and nothing else needs to be
// copied.
type Secret [32]byte

// NewSecret makes a random secret.
func NewSecret() (s Secret, err error) {
	_, err = rand.Read(s[:])
	return s, err
}

// String is the form that stands in the line.
func (s Secret) String() string { return base64.RawURLEncoding.EncodeToString(s[:]) }

// ParseSecret reads the form of [Secret.String].
func ParseSecret(text string) (s Secret, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != len(s) {
		return s, errors.New("the token is not one that xferbench serve printed: paste its whole line")
	}
	copy(s[:], b)
	return s, nil
}

// maxSecretFile bounds what is read of a secret file, in bytes.
const maxSecretFile = 1 << 20

// ReadSecret reads a secret that two sides share in a file: at least 16 bytes
// of anything, which is hashed. A file that other users can read is an error.
func ReadSecret(file string) (s Secret, err error) {
	f, err := os.Open(file)
	if err != nil {
		return s, fmt.Errorf("secret file: %w", err)
	}
	defer f.Close()
	if err := private(f); err != nil {
		return s, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err != nil {
		return s, fmt.Errorf("secret file: %w", err)
	}
	if len(b) > maxSecretFile {
		return s, fmt.Errorf("secret file %s: longer than %d bytes", file, maxSecretFile)
	}
	text := strings.TrimSpace(string(b))
	if len(text) < 16 {
		return s, fmt.Errorf("secret file %s: holds %d bytes, at least 16 are needed", file, len(text))
	}
	return sha256.Sum256([]byte("xferbench secret file\n" + text)), nil
}

// private reports a file that others than its owner may use. Kubernetes gives
// the files of a Secret to root and to the pod's fsGroup: a group of this process
// may read what root owns.
func private(f *os.File) error {
	i, err := f.Stat()
	if err != nil {
		return fmt.Errorf("secret file: %w", err)
	}
	mode := i.Mode().Perm()
	st, ok := i.Sys().(*syscall.Stat_t)
	if mode&0o077 == 0 || ok && mode&0o037 == 0 && st.Uid == 0 && ours(int(st.Gid)) {
		return nil
	}
	return fmt.Errorf("secret file %s: its mode is %04o, so others can read it: chmod 600 %s", f.Name(), mode, f.Name())
}

// ours reports whether this process is in a group.
func ours(gid int) bool {
	groups, err := os.Getgroups()
	return gid == os.Getegid() || err == nil && slices.Contains(groups, gid)
}

func (s Secret) derive(purpose string) []byte {
	// Expand of a 32-byte key cannot fail for 32 bytes of output.
	b, err := hkdf.Expand(sha256.New, s[:], "xferbench "+purpose, 32)
	if err != nil {
		return make([]byte, 32)
	}
	return b
}

func (s Secret) key() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(s.derive("tls key")) }

func (s Secret) clientKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(s.derive("tls client key"))
}

// knock is the name that a client calls the server by. It crosses the network in
// the clear and proves nothing; it keeps apart, before anything is computed, who
// has never seen it.
func (s Secret) knock() string { return hex.EncodeToString(s.derive("knock")[:16]) }

// Fingerprint is the SHA-256 of the server's public key, for a person to
// compare.
func (s Secret) Fingerprint() string {
	spki, err := x509.MarshalPKIXPublicKey(s.key().Public())
	if err != nil {
		return "unknown"
	}
	sum := sha256.Sum256(spki)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// certificate is one of key that is made now.
func certificate(key ed25519.PrivateKey) (c tls.Certificate, err error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		return c, err
	}
	now := time.Now()
	t := &x509.Certificate{SerialNumber: serial, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return c, fmt.Errorf("certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// only is the check of a connection whose other end must hold the key of want.
func only(want ed25519.PrivateKey, wrong error) func(tls.ConnectionState) error {
	public := want.Public().(ed25519.PublicKey)
	return func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return wrong
		}
		got, ok := cs.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
		if !ok || subtle.ConstantTimeCompare(got, public) != 1 {
			return wrong
		}
		return nil
	}
}

// serverTLS is the configuration of a server, whose clients end inside the
// handshake unless they hold the secret.
func (s Secret) serverTLS() (*tls.Config, error) {
	c, err := certificate(s.key())
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{c},
		ClientAuth:             tls.RequireAnyClientCert,
		VerifyConnection:       only(s.clientKey(), errStranger),
		SessionTicketsDisabled: true, // each connection proves it anew
	}, nil
}

// errKey is the error of a server that does not hold the secret.
var errKey = errors.New("the peer's key does not belong to this token: paste the whole line that this peer's xferbench serve printed")

// clientTLS trusts the one key that the secret derives, and no authority.
func (s Secret) clientTLS() (*tls.Config, error) {
	c, err := certificate(s.clientKey())
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		ServerName:         s.knock(),
		Certificates:       []tls.Certificate{c},
		InsecureSkipVerify: true, // replaced by the check of the key itself
		VerifyConnection:   only(s.key(), errKey),
	}, nil
}
