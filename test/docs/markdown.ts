/** What tests need of a Markdown page: its headings, its fenced blocks, its links. */
import fs from 'node:fs'

export const root = new URL('../../', import.meta.url)

export function readPage(page: string): string {
  return fs.readFileSync(new URL(page, root), 'utf8')
}

export interface Block {
  readonly language: string
  readonly text: string
  /** The nearest heading above. */
  readonly heading: string
  /** Of its first fence, from 1. */
  readonly line: number
}

export function blocksOf(page: string): Block[] {
  const blocks: Block[] = []
  let heading = ''
  let open: { language: string; line: number; lines: string[] } | undefined
  for (const [at, line] of readPage(page).split('\n').entries()) {
    const fence = /^```(\w*)$/.exec(line)
    if (open && fence) {
      blocks.push({ language: open.language, text: open.lines.map((text) => `${text}\n`).join(''), heading, line: open.line })
      open = undefined
    } else if (open) open.lines.push(line)
    else if (fence) open = { language: fence[1]!, line: at + 1, lines: [] }
    else heading = /^#+ (.*)$/.exec(line)?.[1] ?? heading
  }
  return blocks
}

/** HOLDFAST_DOCS=write: blocks that show what the code writes are put right instead of compared. */
export const writing = process.env.HOLDFAST_DOCS === 'write'

export function replaceBlock(page: string, { line }: Block, text: string): void {
  const lines = readPage(page).split('\n')
  const end = lines.indexOf('```', line)
  lines.splice(line, end - line, ...text.split('\n').slice(0, -1))
  fs.writeFileSync(new URL(page, root), lines.join('\n'))
}

/** A block and the `text` block behind it: a program and what it prints. */
export function programsOf(page: string, language: string): { program: Block; prints: string; shown: Block }[] {
  const blocks = blocksOf(page)
  return blocks.flatMap((program, at) => {
    const prints = blocks[at + 1]
    return program.language === language && prints?.language === 'text' ? [{ program, prints: prints.text, shown: prints }] : []
  })
}

export function headingsOf(page: string, level: number): string[] {
  const prose = readPage(page).replace(/^```[\s\S]*?^```$/gm, '')
  return [...prose.matchAll(new RegExp(`^#{${level}} (.*)$`, 'gm'))].map(([, heading]) => heading!)
}

/** As GitHub makes them: lower case, punctuation gone, spaces to dashes. */
export function anchorsOf(page: string): Set<string> {
  const all = [1, 2, 3, 4].flatMap((level) => headingsOf(page, level))
  return new Set(
    all.map((heading) =>
      heading
        .toLowerCase()
        .replace(/[^\p{L}\p{N}\s_-]/gu, '')
        .replace(/\s/g, '-'),
    ),
  )
}

/** Targets of relative links. */
export function linksOf(page: string): string[] {
  const prose = readPage(page)
    .replace(/^```[\s\S]*?^```$/gm, '')
    .replace(/`[^`]*`/g, '')
  return [...prose.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => target!).filter((target) => !/^https?:/.test(target))
}
