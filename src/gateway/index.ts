export type { ChatErrorFields, FailureEffect } from './failure.js'
export { ChatError } from './failure.js'
export type { ChatHandler } from './handler.js'
export { createChatHandler } from './handler.js'
export type { FailureLog, GatewayLog, TurnLog } from './log.js'
export type {
  AssistantMessage,
  ChatDelta,
  ChatMessage,
  ChatModel,
  ChatReply,
  ChatUsage,
  ModelContext,
  ToolCall,
  ToolCallDelta,
} from './model.js'
export type { EchoOptions } from './models/echo.js'
export { echoModel } from './models/echo.js'
export type { UpstreamOptions } from './models/upstream.js'
export { upstreamModel } from './models/upstream.js'
export type { ChatHandlerOptions, ChatStore } from './options.js'
export type { ChatRequest } from './request.js'
export type { GatewayServer, ServeOptions } from './server.js'
export { nodeListener, serveGateway } from './server.js'
