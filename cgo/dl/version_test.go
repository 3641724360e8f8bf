package dl

import "testing"

func TestVersion(t *testing.T) {
	for s, want := range map[string]Version{"1.13.1": {1, 13}, "1.22.0-rc1": {1, 22}, "2.0": {2, 0}, "1.17": {1, 17}} {
		if got, err := ParseVersion(s); err != nil || got != want {
			t.Errorf("ParseVersion(%q) = %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "x", "1", "1.", ".1", "1.x", "v1.2", "-1.2", "1.-2"} {
		if got, err := ParseVersion(s); err == nil || got != (Version{}) {
			t.Errorf("ParseVersion(%q) = %v, %v", s, got, err)
		}
	}
	if (Version{1, 17}).String() != "1.17" {
		t.Error(Version{1, 17})
	}
	if !(Version{1, 17}).Less(Version{1, 18}) || !(Version{1, 22}).Less(Version{2, 0}) || (Version{2, 1}).Less(Version{2, 1}) {
		t.Error("the order of versions")
	}
}
