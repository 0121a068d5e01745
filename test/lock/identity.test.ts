/** What a real machine says about its processes. */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import { describe, expect, onTestFinished, test } from 'vitest'
import { probeProcess, readIdentity } from '../../src/file/lock/identity.js'

const linux = process.platform === 'linux'

async function settles<T>(ask: () => T, good: (value: T) => boolean): Promise<T> {
  for (let tries = 0; ; tries++) {
    const value = ask()
    if (good(value) || tries > 500) return value
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

describe('a process', () => {
  test('knows itself, and finds itself', () => {
    const identity = readIdentity()
    expect(identity.pid).toBe(process.pid)
    expect(identity.boot).toMatch(/^[0-9a-f]+$/)
    expect(identity.host).toMatch(/^[A-Za-z0-9-]{1,24}$/)
    const probe = probeProcess(process.pid)
    expect(probe).toMatchObject({ exists: true, zombie: false })
    if (linux) expect(probe.exists && probe.startTime).toBe(identity.startTime)
  })

  test('is told from one that has the same pid later, by when it started', async () => {
    const child = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60_000)'], { stdio: 'ignore' })
    onTestFinished(() => void child.kill('SIGKILL'))
    const probe = probeProcess(child.pid!)
    expect(probe).toMatchObject({ exists: true, zombie: false })
    if (linux) expect(probe.exists && probe.startTime).not.toBe(readIdentity().startTime)
  })

  test('that was killed and reaped does not exist', async () => {
    const child = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60_000)'], { stdio: 'ignore' })
    const pid = child.pid!
    await new Promise((resolve) => {
      child.on('exit', resolve)
      child.kill('SIGKILL')
    })
    expect(probeProcess(pid)).toEqual({ exists: false })
  })

  test.runIf(linux)('that was killed and is not yet reaped is a zombie', async () => {
    // A shell that replaces itself by `sleep` never reaps the child that it had started.
    const parent = spawn('sh', ['-c', 'sleep 0.01 & echo $!; exec sleep 60'], { stdio: ['ignore', 'pipe', 'ignore'] })
    onTestFinished(() => void parent.kill('SIGKILL'))
    const pid = await new Promise<number>((resolve) => parent.stdout.once('data', (text) => resolve(Number(text))))
    expect(
      await settles(
        () => probeProcess(pid),
        (probe) => probe.exists && probe.zombie,
      ),
    ).toMatchObject({ exists: true, zombie: true })
  })

  test.runIf(linux)('with brackets and spaces in its name is read past them', () => {
    const script = `${fs.mkdtempSync('/tmp/holdfast-identity-')}/a) S (b`
    onTestFinished(() => fs.rmSync(script.slice(0, script.lastIndexOf('/')), { recursive: true, force: true }))
    fs.copyFileSync('/bin/sleep', script)
    fs.chmodSync(script, 0o700)
    const child = spawn(script, ['60'], { stdio: 'ignore' })
    onTestFinished(() => void child.kill('SIGKILL'))
    const probe = probeProcess(child.pid!)
    expect(probe.exists && probe.startTime).toMatch(/^\d+$/)
  })
})
