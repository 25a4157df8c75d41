package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/semelhq/semel/cmd/internal/stores"
)

func migrateCommand() *cobra.Command {
	var url string
	var printIt bool
	c := &cobra.Command{
		Use:   "migrate --store URL [--print]",
		Short: "bring a database's schema up to date",
		Long: `Bring the schema of a database up to date. A gateway makes the schema in an empty
database by itself; after an upgrade of Semel it refuses an older schema until this
was run. It may run twice, and on two machines at once: one does the work, the
other waits and finds it done. Gateways may go on meanwhile.

With --print the SQL is printed instead, for those who have a tool for migrations:
plain files in goose's format, in their order.`,
		Example: `  semel migrate --store postgres://semel@db/payments
  semel migrate --store postgres://semel@db/payments --print | less`,
		Args: checked(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if printIt {
				return printMigrations(c.OutOrStdout(), url)
			}
			if err := stores.Migrate(c.Context(), url); err != nil {
				return usage(err)
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "The schema of %s is up to date.\n", stores.Redacted(url))
			return err
		},
	}
	addStore(c.Flags(), &url)
	c.Flags().BoolVar(&printIt, "print", false, "print the SQL and change nothing")
	c.Flags().BoolP("help", "h", false, "show this")
	c.DisableFlagsInUseLine = true
	return c
}

// printMigrations prints the files of a schema one after the other.
func printMigrations(w io.Writer, url string) error {
	files, err := stores.Migrations(url)
	if err != nil {
		return usage(err)
	}
	names, err := fs.Glob(files, "*.sql")
	if err != nil || len(names) == 0 {
		return errors.Join(err, errors.New("this store has no migrations"))
	}
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "-- %s\n%s\n", name, text); err != nil {
			return err
		}
	}
	return nil
}
