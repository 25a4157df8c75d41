module github.com/semelhq/semel

go 1.26.0
