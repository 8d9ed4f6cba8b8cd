// Package tig stands in for a package that only nerdctl's own tests call: nerdctl's module names it
// by a path in its repository, so that it is on no module proxy, and a file of nerdctl's program
// mentions this one type.
package tig

import "testing"

// T is a running test.
type T = testing.TB
