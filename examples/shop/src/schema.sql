CREATE TABLE IF NOT EXISTS products (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  cents INTEGER NOT NULL,
  stock INTEGER NOT NULL CONSTRAINT in_stock CHECK (stock >= 0)
) STRICT;

CREATE TABLE IF NOT EXISTS cart_lines (
  customer TEXT NOT NULL,
  product INTEGER NOT NULL REFERENCES products,
  quantity INTEGER NOT NULL CHECK (quantity > 0),
  PRIMARY KEY (customer, product)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS orders (
  id TEXT PRIMARY KEY,
  customer TEXT NOT NULL,
  placed TEXT NOT NULL,
  cents INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS order_lines (
  order_id TEXT NOT NULL REFERENCES orders,
  product INTEGER NOT NULL REFERENCES products,
  quantity INTEGER NOT NULL,
  cents INTEGER NOT NULL,
  PRIMARY KEY (order_id, product)
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS orders_by_customer ON orders (customer, placed);

INSERT OR IGNORE INTO products (id, name, cents, stock) VALUES
  (1, 'Tide table, this year', 1450, 40),
  (2, 'Brass barometer', 8900, 5),
  (3, 'Harbour lamp', 5200, 8),
  (4, 'Lighthouse & keeper, a print', 2800, 12),
  (5, 'The last message in a bottle', 9900, 1);
