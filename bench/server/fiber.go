package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/idempotency"
	"github.com/gofiber/storage/redis/v3"
)

// serveFiber serves the same API by fiber, if guarded behind its idempotency
// middleware: over its storage in Redis if the URL of a store says so, else over
// the middleware's default, which is process memory.
func serveFiber(address, store string, guarded bool) error {
	p := new(payments)
	app := fiber.New()
	if guarded {
		config := idempotency.Config{KeyHeader: "Idempotency-Key"}
		if strings.HasPrefix(store, "redis:") {
			config.Storage = redis.New(redis.Config{URL: store})
		}
		app.Use(idempotency.New(config))
	}
	send := func(c fiber.Ctx, out []byte, err error) error {
		if err != nil {
			return fiber.NewError(fiber.StatusBadRequest, err.Error())
		}
		c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
		return c.Status(fiber.StatusCreated).Send(out)
	}
	app.Post("/payments", func(c fiber.Ctx) error {
		out, err := p.pay(c.Body())
		return send(c, out, err)
	})
	app.Post("/slow", func(c fiber.Ctx) error {
		time.Sleep(slowness)
		out, err := p.pay(c.Body())
		return send(c, out, err)
	})
	app.Post("/fixed", func(c fiber.Ctx) error { return send(c, p.fixed(), nil) })
	app.Get("/runs", func(c fiber.Ctx) error { return c.SendString(strconv.FormatInt(p.runs.Load(), 10)) })
	return app.Listen(address, fiber.ListenConfig{DisableStartupMessage: true})
}
