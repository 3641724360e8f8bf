// Package buildtest holds the tests of what surrounds the program: the release
// archives, the build against newer headers and libraries, the files under
// deploy/, and rules about the source tree. It has no code of its own.
package buildtest
