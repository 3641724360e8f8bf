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
	"math/big"
	"os"
	"strings"
	"time"
)

// Secret is what the line that serve prints carries: 32 random bytes, made at
// each start. Both the server's TLS key and the session's bearer token are
// derived from it, so that who holds the line can check the server and is known
// to it, and nothing else needs to be copied.
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

// ReadSecret reads a secret that two sides share in a file: at least 16 bytes
// of anything, which is hashed.
func ReadSecret(file string) (s Secret, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return s, fmt.Errorf("secret file: %w", err)
	}
	text := strings.TrimSpace(string(b))
	if len(text) < 16 {
		return s, fmt.Errorf("secret file %s: holds %d bytes, at least 16 are needed", file, len(text))
	}
	return sha256.Sum256([]byte("xferbench secret file\n" + text)), nil
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

func (s Secret) token() string { return hex.EncodeToString(s.derive("bearer token")) }

func (s Secret) tokenOK(given string) bool {
	return subtle.ConstantTimeCompare([]byte(given), []byte(s.token())) == 1
}

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

// serverTLS is the configuration of a server with a certificate made now.
func (s Secret) serverTLS() (*tls.Config, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	t := &x509.Certificate{SerialNumber: serial, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, s.key().Public(), s.key())
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: s.key()}},
	}, nil
}

// errKey is the error of a server that does not hold the secret.
var errKey = errors.New("the peer's key does not belong to this token: paste the whole line that this peer's xferbench serve printed")

// clientTLS trusts the one key that the secret derives, and no authority.
func (s Secret) clientTLS() *tls.Config {
	want := s.key().Public().(ed25519.PublicKey)
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // replaced by the check of the key itself
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return errKey
			}
			got, ok := cs.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
			if !ok || subtle.ConstantTimeCompare(got, want) != 1 {
				return errKey
			}
			return nil
		},
	}
}
