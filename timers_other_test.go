//go:build !linux

package main

func tellTimers() {}
