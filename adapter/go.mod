module github.com/semelhq/semel/adapter

go 1.26.0

require github.com/semelhq/semel v0.0.0

replace github.com/semelhq/semel => ../
