package main

import (
	"strconv"
	"time"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/idempotency"
)

// serveFiber serves the same API by fiber, if guarded behind its idempotency
// middleware with the middleware's default storage, which is process memory.
func serveFiber(address string, guarded bool) error {
	p := new(payments)
	app := fiber.New()
	if guarded {
		app.Use(idempotency.New(idempotency.Config{KeyHeader: "Idempotency-Key"}))
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
