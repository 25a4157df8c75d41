module github.com/semelhq/semel/bench

go 1.26.0

require github.com/semelhq/semel v0.0.0

replace (
	github.com/semelhq/semel => ../
	github.com/semelhq/semel/adapter => ../adapter
)
