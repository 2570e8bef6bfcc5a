-- The shops' customers, orders, products and policies. Several tenants may share a shop.

CREATE TABLE shops (
    shop_id   text PRIMARY KEY,
    loaded_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE shop_customers (
    shop_id   text NOT NULL REFERENCES shops,
    user_id   text NOT NULL,
    email_key text NOT NULL, -- the address as it is compared
    document  jsonb NOT NULL,
    PRIMARY KEY (shop_id, user_id),
    UNIQUE (shop_id, email_key)
);

CREATE TABLE shop_orders (
    shop_id  text NOT NULL REFERENCES shops,
    order_id text NOT NULL,
    user_id  text NOT NULL,
    status   text NOT NULL,
    document jsonb NOT NULL,
    PRIMARY KEY (shop_id, order_id)
);

CREATE INDEX shop_orders_of_customer ON shop_orders (shop_id, user_id);

CREATE TABLE shop_products (
    shop_id    text NOT NULL REFERENCES shops,
    product_id text NOT NULL,
    document   jsonb NOT NULL,
    PRIMARY KEY (shop_id, product_id)
);

CREATE TABLE shop_passages (
    shop_id  text NOT NULL REFERENCES shops,
    position integer NOT NULL, -- its place in the policy
    document jsonb NOT NULL,
    PRIMARY KEY (shop_id, position)
);
