// Package config reads the settings of `semel gateway`: from flags, then SEMEL_*
// variables, then a YAML file, then defaults. It refuses what it does not know
// and what is unsafe, all of it at once, with the place of each mistake and what
// would be right.
//
// docs/spec/config.md is its reference for users. It is for the semel command
// alone; programs of their own compose package gateway directly.
package config
