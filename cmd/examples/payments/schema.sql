-- The shop's tables. Semel keeps its own beside them, in the schema "semel" of the same database.

CREATE TABLE IF NOT EXISTS orders (
	id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	reference text NOT NULL,   -- the customer's own number
	amount    bigint NOT NULL, -- in cents
	charge    text             -- the provider's number, once it is paid
);

-- A ledger in double entry: what one event adds sums up to nothing.
CREATE TABLE IF NOT EXISTS entries (
	id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	order_id bigint NOT NULL REFERENCES orders,
	account  text NOT NULL,    -- sales, receivable, bank
	amount   bigint NOT NULL   -- in cents
);
