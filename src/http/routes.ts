import { CONTROL_STAGES, INFERENCE_STAGES } from "../pipeline/stages";
import { getAdminApiKey, getAdminApiKeys, postAdminApiKey, removeAdminApiKey } from "./admin-api-keys";
import { getProjectApiKey, getProjectApiKeys, removeProjectApiKey } from "./api-keys";
import { getAuditLogs } from "./audit-logs";
import { chatCompletions } from "./chat-completions";
import { classifications } from "./classifications";
import { getCosts } from "./costs";
import { getDataRetention, postDataRetention } from "./data-retention";
import { getDecisions } from "./decisions";
import { embeddings } from "./embeddings";
import { postEndUserToken } from "./end-user-tokens";
import { deleteEndpoint, getEndpoints, postEndpoint } from "./endpoints";
import { getFile, getFileContent, getFiles, postFile, removeFile } from "./files";
import type { Handler } from "./handler";
import { getHealth } from "./health";
import { getIsolation, postIsolation } from "./isolation";
import { getLimits, getProjectLimits, postPlan, postProjectLimits } from "./limits";
import { type ModelEndpoint, modelEndpoint, type ParsedCall } from "./model-call";
import { getModel, listModels } from "./models";
import { moderations } from "./moderations";
import {
  getProject,
  getProjects,
  postArchiveProject,
  postModifyProject,
  postProject,
  postRestoreProject,
  postResumeProject,
  postSuspendProject,
} from "./projects";
import { getRateLimits, postRateLimit } from "./rate-limits";
import { postCostAllocation, postReconciliation } from "./reconciliations";
import { cancelResponse, deleteResponse, getInputItems, getResponse, responses } from "./responses";
import { getRetention, postRetention } from "./retention";
import type { Route } from "./route";
import {
  getServiceAccount,
  getServiceAccounts,
  postModifyServiceAccount,
  postServiceAccount,
  postServiceAccountKey,
  removeServiceAccount,
} from "./service-accounts";
import { getSpendLimit, postSpendLimit, removeSpendLimit } from "./spend-limit";
import {
  deleteCompletion,
  getCompletion,
  getCompletionMessages,
  getCompletions,
  postCompletion,
} from "./stored-completions";
import { getCompletionsUsage, getEmbeddingsUsage, getModerationsUsage } from "./usage";

const control = (
  scope: "account" | "admin" | "data",
  method: Route["method"],
  path: string,
  handler: Handler,
  more: Pick<Route, "alsoScopes" | "readsForm" | "showsSecret"> = {},
): Route => ({
  method,
  path,
  scope,
  stages: CONTROL_STAGES,
  handler,
  ...more,
});
const inference = <T extends ParsedCall>(path: string, endpoint: ModelEndpoint<T>): Route => ({
  method: "POST",
  path,
  scope: "data",
  stages: INFERENCE_STAGES,
  ...modelEndpoint(endpoint),
});

const COMPLETION = "/v1/chat/completions/:completion_id";
const FILE = "/v1/files/:file_id";
const RESPONSE = "/v1/responses/:response_id";
const PROJECT = "/v1/organization/projects/:project_id";
/** Names of models may contain slashes, which a path carries as %2F. */
const MODEL = "/v1/tenantry/models/:model";
const SETTINGS = "/v1/tenantry/projects/:project_id";
const ACCOUNT = `${PROJECT}/service_accounts/:service_account_id`;

/** Every route there is: who may call it and what it passes. The one list that the application and its tests walk. */
export const ROUTES: readonly Route[] = [
  { method: "GET", path: "/health", scope: "public", stages: [], handler: getHealth },

  inference("/v1/chat/completions", chatCompletions),
  control("data", "GET", "/v1/chat/completions", getCompletions),
  control("data", "GET", COMPLETION, getCompletion),
  control("data", "POST", COMPLETION, postCompletion),
  control("data", "DELETE", COMPLETION, deleteCompletion),
  control("data", "GET", `${COMPLETION}/messages`, getCompletionMessages),
  inference("/v1/embeddings", embeddings),
  inference("/v1/responses", responses),
  inference("/v1/moderations", moderations),
  inference("/v1/tenantry/classifications", classifications),
  control("data", "GET", RESPONSE, getResponse),
  control("data", "DELETE", RESPONSE, deleteResponse),
  control("data", "POST", `${RESPONSE}/cancel`, cancelResponse),
  control("data", "GET", `${RESPONSE}/input_items`, getInputItems),
  control("data", "GET", "/v1/models", listModels),
  control("data", "GET", "/v1/models/:model{.+}", getModel),

  control("data", "POST", "/v1/files", postFile, { readsForm: true }),
  control("data", "GET", "/v1/files", getFiles),
  control("data", "GET", FILE, getFile),
  control("data", "DELETE", FILE, removeFile),
  control("data", "GET", `${FILE}/content`, getFileContent),

  control("account", "POST", "/v1/tenantry/end_user_tokens", postEndUserToken, {
    alsoScopes: ["data"],
    showsSecret: true,
  }),
  control("account", "GET", "/v1/tenantry/decisions", getDecisions),
  control("account", "GET", "/v1/tenantry/limits", getLimits),

  control("admin", "POST", "/v1/organization/projects", postProject),
  control("admin", "GET", "/v1/organization/projects", getProjects),
  control("admin", "GET", PROJECT, getProject),
  control("admin", "POST", PROJECT, postModifyProject),
  control("admin", "POST", `${PROJECT}/archive`, postArchiveProject),
  control("admin", "POST", `${PROJECT}/service_accounts`, postServiceAccount, { showsSecret: true }),
  control("admin", "GET", `${PROJECT}/service_accounts`, getServiceAccounts),
  control("admin", "GET", ACCOUNT, getServiceAccount),
  control("admin", "POST", ACCOUNT, postModifyServiceAccount),
  control("admin", "DELETE", ACCOUNT, removeServiceAccount),
  control("admin", "POST", `${ACCOUNT}/api_keys`, postServiceAccountKey, { showsSecret: true }),
  control("admin", "GET", `${PROJECT}/api_keys`, getProjectApiKeys),
  control("admin", "GET", `${PROJECT}/api_keys/:api_key_id`, getProjectApiKey),
  control("admin", "DELETE", `${PROJECT}/api_keys/:api_key_id`, removeProjectApiKey),
  control("admin", "GET", `${PROJECT}/rate_limits`, getRateLimits),
  control("admin", "POST", `${PROJECT}/rate_limits/:rate_limit_id`, postRateLimit),
  control("admin", "GET", `${PROJECT}/spend_limit`, getSpendLimit),
  control("admin", "POST", `${PROJECT}/spend_limit`, postSpendLimit),
  control("admin", "DELETE", `${PROJECT}/spend_limit`, removeSpendLimit),
  control("admin", "GET", `${PROJECT}/data_retention`, getDataRetention),
  control("admin", "POST", `${PROJECT}/data_retention`, postDataRetention),
  control("admin", "GET", "/v1/organization/admin_api_keys", getAdminApiKeys),
  control("admin", "POST", "/v1/organization/admin_api_keys", postAdminApiKey, { showsSecret: true }),
  control("admin", "GET", "/v1/organization/admin_api_keys/:key_id", getAdminApiKey),
  control("admin", "DELETE", "/v1/organization/admin_api_keys/:key_id", removeAdminApiKey),
  control("admin", "GET", "/v1/organization/audit_logs", getAuditLogs),
  control("admin", "GET", "/v1/organization/usage/completions", getCompletionsUsage),
  control("admin", "GET", "/v1/organization/usage/embeddings", getEmbeddingsUsage),
  control("admin", "GET", "/v1/organization/usage/moderations", getModerationsUsage),
  control("admin", "GET", "/v1/organization/costs", getCosts),

  control("admin", "POST", "/v1/tenantry/reconciliations", postReconciliation),
  control("admin", "POST", "/v1/tenantry/cost_allocations", postCostAllocation),
  control("admin", "GET", `${MODEL}/endpoints`, getEndpoints),
  control("admin", "POST", `${MODEL}/endpoints`, postEndpoint),
  control("admin", "DELETE", `${MODEL}/endpoints/:endpoint_id`, deleteEndpoint),
  control("admin", "POST", `${SETTINGS}/restore`, postRestoreProject),
  control("admin", "POST", `${SETTINGS}/suspend`, postSuspendProject),
  control("admin", "POST", `${SETTINGS}/resume`, postResumeProject),
  control("admin", "POST", `${SETTINGS}/plan`, postPlan),
  control("admin", "GET", `${SETTINGS}/limits`, getProjectLimits),
  control("admin", "POST", `${SETTINGS}/limits`, postProjectLimits),
  control("admin", "GET", `${SETTINGS}/isolation`, getIsolation),
  control("admin", "POST", `${SETTINGS}/isolation`, postIsolation),
  control("admin", "GET", `${SETTINGS}/retention`, getRetention),
  control("admin", "POST", `${SETTINGS}/retention`, postRetention),
];
